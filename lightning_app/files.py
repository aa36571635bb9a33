"""Files that are whole or not there."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_app.errors import InputError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_file(path: Path) -> None:
    """Raise an InputError unless ``path`` is an ordinary file with something in it; links are followed."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # a loop of links, a name too long, no permission
        raise InputError(f"{path} cannot be read ({error.strerror if isinstance(error, OSError) else error})") from None
    if kind := KINDS.get(stat.S_IFMT(found.st_mode)):
        raise InputError(f"{path} is {kind}, not a file")
    if not found.st_size:
        raise InputError(f"{path} is empty. Get the file again.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read (Permission denied)")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, which takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
