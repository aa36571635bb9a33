"""Files whose names someone else may have taken: no link is followed, nothing but a plain file is opened."""

import os
import stat
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Final

from zoo.errors import ZooError, shown

_SAFE: Final = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


def is_file(path: Path) -> bool:
    """Whether a file is there; of a name that is too long, or in a folder that may not be looked into, False."""
    try:
        return path.is_file()
    except OSError:
        return False


def open_plain(path: Path) -> BufferedReader:
    """The file, or the one that a link leads to, to read; a pipe or a device is refused and never waited for.

    Raises:
        OSError: it cannot be opened.
        ZooError: it is no plain file.
    """
    descriptor = os.open(path, os.O_RDONLY | _SAFE & ~getattr(os, "O_NOFOLLOW", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ZooError(f"{path}: no plain file")
    return os.fdopen(descriptor, "rb")


def open_own(path: Path) -> FileIO:
    """A file of this one name, to read and append to, made where there is none.

    A link, a pipe, a device or a file of several names that stands there is removed, not opened.

    Raises:
        ZooError: a folder stands there, or the file cannot be opened.
    """
    clear(path)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _SAFE, 0o666)
    except OSError as error:
        raise ZooError(f"{path}: {error.strerror}") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(descriptor)
        raise ZooError(f"{path}: something else takes its name again and again")
    return FileIO(descriptor, "ab+")


def clear(path: Path) -> None:
    """Remove what stands there unless it is a plain file of this one name.

    Raises:
        ZooError: it is a folder, or cannot be removed.
    """
    try:
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            raise ZooError(f"{path}: a folder stands where the file should be; move it away")
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ZooError(f"{path}: {error.strerror}") from None


def make_folder(path: Path) -> None:
    """Make the folder and those above it.

    Raises:
        ZooError: it cannot be.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"{shown(str(path), 500)}: {error.strerror}") from None
