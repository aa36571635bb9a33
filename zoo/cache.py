"""Where files of weights lie on this machine."""

import hashlib
import os
import re
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Final

from zoo import files
from zoo.entry import ADDRESSES, FORMATS, REMOTE, SHIPPED, Stored, ZooEntry
from zoo.errors import ZooError, shown

CHECKOUT: Final = Path(__file__).parents[1]
NOT_HERE: Final = (
    f"ships with the repository: run from a checkout, or set CONTEXTZOO_SHIPPED to its folder {SHIPPED} or to an "
    "address of that"
)


def home() -> Path:
    """Folder of downloads: ``CONTEXTZOO_HOME``; else ``checkpoints/downloads`` of a checkout; else the user's cache.

    Raises:
        ZooError: this user has no home folder.
    """
    try:
        if named := os.environ.get("CONTEXTZOO_HOME"):
            return Path(named).expanduser()
        if (CHECKOUT / "pyproject.toml").is_file() and (CHECKOUT / SHIPPED).is_dir():
            return CHECKOUT / SHIPPED / "downloads"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "contextzoo"
    except RuntimeError:
        raise ZooError("No home folder is known here: set CONTEXTZOO_HOME to the folder of downloads") from None


def offline() -> bool:
    """Whether ``CONTEXTZOO_OFFLINE`` forbids the network."""
    return os.environ.get("CONTEXTZOO_OFFLINE", "") not in ("", "0")


def shipped_at() -> str | None:
    """``CONTEXTZOO_SHIPPED``: the folder ``checkpoints`` of a checkout, or the address of one.

    Raises:
        ZooError: it is no folder, and no address.
    """
    place = os.environ.get("CONTEXTZOO_SHIPPED")
    if not place or REMOTE.fullmatch(place) or Path(place).expanduser().is_dir():
        return place or None
    raise ZooError(f'CONTEXTZOO_SHIPPED is "{shown(place)}": neither a folder nor an address ({ADDRESSES})')


def shipped(entry: Stored) -> Path | None:
    """The file that came with the repository, where there is one."""
    place = shipped_at()
    for source in entry.sources:
        if source.startswith(f"{SHIPPED}/"):
            folders = [CHECKOUT / SHIPPED]
            folders += [Path(place).expanduser()] if place and "://" not in place else []
            for folder in folders:
                if files.is_file(path := folder / source.removeprefix(f"{SHIPPED}/")):
                    return path
    return None


def out_of_reach(entry: ZooEntry) -> bool:
    """Whether the file ships with the repository, which is not here, and has no address."""
    return (
        all(source.startswith(f"{SHIPPED}/") for source in entry.sources)
        and "://" not in (shipped_at() or "")
        and find(entry) is None
    )


def target(entry: Stored) -> Path:
    """Where a download of the entry's file lands."""
    return home() / entry.filename


def find(entry: ZooEntry) -> Path | None:
    """The entry's own file on this machine, unread; None where it, or a part that it shares, is not here."""
    if len(find_shared(entry)) < len(entry.shared_files):
        return None
    return _find(entry)


def find_shared(entry: ZooEntry) -> list[tuple[Stored, Path]]:
    """The parts that the entry shares, as far as they are on this machine."""
    return [(each, path) for each in entry.shared_files if (path := _find(each))]


def _find(file: Stored) -> Path | None:
    path = target(file)
    return path if files.is_file(path) else shipped(file)


def belongings(entry: ZooEntry) -> list[Path]:
    """What a download of the entry left in the cache: the file, its part, its lock, and what was converted from it."""
    kinds = "|".join(suffix[1:] for suffix in FORMATS.values())
    ours = re.compile(rf"\.?{re.escape(entry.id)}\.({kinds})(\.(part|lock|\d+))?")
    try:
        return sorted(path for path in home().iterdir() if ours.fullmatch(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def matches(entry: Stored, file: BufferedReader | FileIO) -> bool:
    """Whether an open file is the entry's, by size and hash."""
    if entry.size not in (None, os.fstat(file.fileno()).st_size):
        return False
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest().startswith(entry.sha256)


def intact(entry: Stored, path: Path) -> bool:
    """Whether the file is the entry's, by size and hash.

    Raises:
        ZooError: it cannot be read.
    """
    try:
        with files.open_plain(path) as file:
            return matches(entry, file)
    except OSError as error:
        raise ZooError(f"{path}: {error.strerror}") from None
