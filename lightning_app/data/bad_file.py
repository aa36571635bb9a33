"""Files that cannot be used, and what a person can do about it."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from lightning_app.util.errors import InputError

AGAIN: Final = "Get the file again."


class BadFile(InputError):
    """One file that cannot be used; ``problems`` are worded so that files with the same one can be counted together."""

    def __init__(self, path: Path, problems: tuple[str, ...], fix: str, detail: str = "") -> None:
        super().__init__(path, problems, fix, detail)  # args, so that it survives the way back from a worker process
        self.path, self.problems, self.fix, self.detail = path, problems, fix, detail

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.path}: {'; '.join(self.problems)}{detail}. {self.fix}"


@contextmanager
def regular_file(path: Path) -> Iterator[BinaryIO]:
    """The open file; a pipe or a device, whose reading may never end, is an error like a missing file.

    Raises:
        BadFile: there is no such file, or it is of another kind.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "A folder" if stat.S_ISDIR(mode) else "A pipe, socket or device"
            raise BadFile(path, (f"{what}, not a file",), "Put a file there or remove it.")
        file = path.open("rb")
    except FileNotFoundError:
        if path.is_symlink():
            raise BadFile(path, ("A link to nothing",), "Restore what it points to or remove it.") from None
        raise BadFile(path, ("No such file",), "Restore it or take it off the split's list.") from None
    except PermissionError:
        raise BadFile(path, ("No permission to read it",), "Give it (chmod) or remove the file.") from None
    except OSError as error:  # such as a loop of links
        raise BadFile(path, ("Cannot be opened",), AGAIN, error.strerror or str(error)) from None
    with file:
        yield file
