"""Where files of weights lie on this machine."""

import hashlib
import os
from pathlib import Path
from typing import Final

from zoo.entry import SHIPPED, ZooEntry

CHECKOUT: Final = Path(__file__).parents[1]


def home() -> Path:
    """Folder of downloads: ``CONTEXTZOO_HOME``; else ``checkpoints/downloads`` of a checkout; else the user's cache."""
    if named := os.environ.get("CONTEXTZOO_HOME"):
        return Path(named).expanduser()
    if (CHECKOUT / "pyproject.toml").is_file() and (CHECKOUT / SHIPPED).is_dir():
        return CHECKOUT / SHIPPED / "downloads"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "contextzoo"


def offline() -> bool:
    """Whether ``CONTEXTZOO_OFFLINE`` forbids the network."""
    return os.environ.get("CONTEXTZOO_OFFLINE", "") not in ("", "0")


def shipped(entry: ZooEntry) -> Path | None:
    """The file that came with the repository, where there is one."""
    for source in entry.sources:
        if source.startswith(f"{SHIPPED}/") and (path := CHECKOUT / source).is_file():
            return path
    return None


def target(entry: ZooEntry) -> Path:
    """Where a download of the entry's file lands."""
    return home() / entry.filename


def find(entry: ZooEntry) -> Path | None:
    """The entry's file on this machine, unread; None where there is none."""
    path = target(entry)
    return path if path.is_file() else shipped(entry)


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def intact(entry: ZooEntry, path: Path) -> bool:
    """Whether the file is the entry's, by size and hash."""
    return entry.size in (None, path.stat().st_size) and sha256(path).startswith(entry.sha256)
