"""Files that are whole or not there."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_app.util.errors import InputError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_TEMPORARY = re.compile(r"\..+\.(\d+)")  # what replacing() writes to; the number is its process


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


def check_folder(folder: Path) -> None:
    """Raise an InputError where a file stands in the place of the folder, or of one above it."""
    there = next((each for each in (folder, *folder.parents) if os.path.lexists(each)), folder)
    if os.path.lexists(there) and not there.is_dir():
        raise InputError(f"{there} is a file, not a folder: give another place")


def make_folder(folder: Path) -> None:
    """Make the folder and those above it, unless they are there.

    Raises:
        InputError: it cannot be.
    """
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}): give another place") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, which takes its place when the block ends well.

    What was at ``path`` stays until all of the new file is on the disk, so neither a kill nor a power cut loses both.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes had begun to write right in ``folder``; call it before writing there."""
    for path in folder.glob(".*"):
        named = _TEMPORARY.fullmatch(path.name)
        if named and not _is_another(int(named[1])):
            path.unlink(missing_ok=True)


def _is_another(process: int) -> bool:
    """Whether another process of that number lives; a container gives the same number again and again."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
