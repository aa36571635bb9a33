"""One record for every labelling tool: a picture and the outlined objects in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lightning_app.data.bad_file import BadFile
from lightning_app.data.picture_files import SUFFIXES
from lightning_app.data.rle import RLE, Polygons

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class LabelledObject:
    """One object: its class's name and its outline, or where there is none its box (x, y, width, height)."""

    name: str
    segmentation: Polygons | RLE | None
    bbox: tuple[float, float, float, float] | None = None
    iscrowd: bool = False


@dataclass(frozen=True)
class LabelledImage:
    """One picture of an export; ``split`` is train, val or test, or empty where the export has no splits."""

    path: Path
    height: int
    width: int
    objects: Sequence[LabelledObject]
    split: str = ""


@dataclass
class Export:
    """What was read of an export.

    Args:
        names: classes in the tool's order.
        left_out: what was left out, in words -> how often.
    """

    images: list[LabelledImage] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, what: str, count: int = 1) -> None:
        """Count something that cannot be taken over."""
        if count:
            self.left_out[what] = self.left_out.get(what, 0) + count

    def name(self, name: str) -> str:
        """A class, known from here on."""
        if name not in self.names:
            self.names.append(name)
        return name


class Pictures:
    """The pictures below a folder, found by what exports call them: paths of other machines, or names alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name: dict[str, list[Path]] = {}
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
                self._by_name.setdefault(path.name, []).append(path)

    def find(self, named: str, near: Path, source: Path) -> Path:
        """The picture of that name, one beside ``near`` first; never one outside of the folder.

        Raises:
            BadFile: there is none, or there are several.
        """
        parts = PurePosixPath(named.replace("\\", "/")).parts
        found = self._by_name.get(parts[-1] if parts else "", [])
        for length in range(len(parts), 0, -1):  # as much of the path as fits
            fitting = [path for path in found if path.parts[-length:] == parts[-length:]]
            close = [path for path in fitting if path.is_relative_to(near)] or fitting
            if len(close) == 1:
                return close[0]
            if len(close) > 1:
                raise BadFile(source, (f"Several pictures are called {parts[-1]}",), "Export one folder at a time.")
        raise BadFile(source, (f"No picture {parts[-1] if parts else named}",), f"Put it below {self.root}.")


def split_of(path: Path, root: Path) -> str:
    """The split that a folder on the way to a file says; empty where none does."""
    found = [SPLITS[part.lower()] for part in path.relative_to(root).parts[:-1] if part.lower() in SPLITS]
    return found[-1] if found else ""


def mapping(value: object) -> Mapping[str, object]:
    """A JSON object, or an empty one in its place."""
    return value if isinstance(value, dict) else {}
