"""What lies in a dataset's folders: pictures by name, and lists of names."""

from collections.abc import Collection
from hashlib import sha256
from pathlib import Path

from lightning_app.data.bad_file import regular_file
from lightning_app.data.facts import DatasetFacts
from lightning_app.data.images import left_out
from lightning_app.data.picture_files import SUFFIXES
from lightning_app.util.errors import InputError


class Listing(dict[str, Path]):
    """Pictures, each by a key that an image shares with its mask.

    Attributes:
        clashes: a key -> the files that share it, of which only the first is in the listing.
        left_out: one line on the files that are no pictures, or nothing.
    """

    clashes: dict[str, list[Path]]
    left_out: str

    def __init__(self) -> None:
        super().__init__()
        self.clashes, self.left_out = {}, ""

    def only(self, keys: Collection[str]) -> "Listing":
        """Those pictures of ``keys`` that are here."""
        chosen = Listing()
        chosen.update({key: self[key] for key in keys if key in self})
        chosen.clashes = {key: paths for key, paths in self.clashes.items() if key in keys}
        chosen.left_out = self.left_out
        return chosen


def files(folder: Path, *, ending: str = "") -> Listing:
    """Pictures below ``folder``, each by its path in it without suffix and ``ending``; hidden ones do not count."""
    found, others = Listing(), []
    for path in sorted(folder.rglob("*")):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() not in SUFFIXES:
            others.append(path)
            continue
        if not path.stem.endswith(ending):
            continue
        key = path.relative_to(folder).with_suffix("").as_posix().removesuffix(ending)
        if key in found:
            found.clashes.setdefault(key, [found[key]]).append(path)
        else:
            found[key] = path
    if not ending:  # where names say what a file is, others are expected
        found.left_out = left_out(others)
    return found


def require(folder: Path, facts: DatasetFacts, what: str) -> Path:
    """``folder``, or an error that says what is missing and where to get it."""
    if not folder.is_dir():
        source = f" (get {facts.name} at {facts.url})" if facts.url else ""
        state = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {state}: {what}. Give the right --data.root{source}.")
    return folder


def read_list(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    with regular_file(path) as file:
        try:
            text = file.read().decode("utf-8-sig")  # some editors begin a file with a mark
        except UnicodeDecodeError:
            raise InputError(f"{path} is no UTF-8 text: save it as such, one name a line") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def place_of(key: str) -> float:
    """A number from 0 to 1 that hangs on the name alone."""
    return int.from_bytes(sha256(key.encode()).digest()[:8], "big") / 2**64
