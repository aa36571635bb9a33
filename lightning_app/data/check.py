"""All that is wrong with a dataset's files, found before any training."""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lightning_app.data.files import FileDataModule, require
from lightning_app.data.images import BadFile, read_image, require_same_size
from lightning_app.errors import InputError

SHOWN = 5  # files named per problem


@dataclass(frozen=True)
class Finding:
    """One problem of one split and the files that have it.

    ``fatal`` ones stop a training; the others are handled and only said.
    """

    split: str
    problem: str
    files: tuple[str, ...] = ()
    fix: str = ""
    fatal: bool = True

    @property
    def names(self) -> str:
        """The first few files, and how many more there are."""
        more = f" and {len(self.files) - SHOWN} more" if len(self.files) > SHOWN else ""
        return ", ".join(self.files[:SHOWN]) + more

    def __str__(self) -> str:
        if not self.files:
            return f"{self.problem}."
        if ":" in self.problem:
            return f"{self.problem}, {len(self.files)} image{'s' * (len(self.files) > 1)} ({self.names})."
        return f"{self.problem}: {self.names}."


def check(data: FileDataModule) -> list[Finding]:
    """Read every file of the splits that ``data`` trains, validates and tests on.

    Raises:
        InputError: there is no such root.
    """
    require(data.root, data.facts, f"the root of {data.facts.name}")
    findings: list[Finding] = []
    for split in dict.fromkeys(data.splits.values()):
        try:
            images, masks = data.listing(split)
        except InputError as error:
            # an official test split that was not downloaded is no fault of the files that were
            stages = [stage for stage in data.splits if data.splits[stage] == split]
            optional = stages == ["test"] and split == data.facts.test_split
            findings.append(Finding(split, str(error).rstrip("."), fatal=not optional))
            continue
        findings += _check_split(data, split, dict(images), dict(masks))
    return findings


def counts(data: FileDataModule) -> dict[str, tuple[int, int]]:
    """Split -> number of images and of masks, for the splits that are there."""
    found = {}
    for split in dict.fromkeys(data.splits.values()):
        try:
            images, masks = data.listing(split)
        except InputError:
            continue
        found[split] = len(images), len(masks)
    return found


def _check_split(
    data: FileDataModule, split: str, images: dict[str, Path], masks: dict[str, Path]
) -> Iterator[Finding]:
    if not images:
        yield Finding(split, "No images", fix="Give the right --data.root.")
    if missing := tuple(sorted(images.keys() - masks.keys())):
        yield Finding(split, "Missing masks", missing, "Add the masks or remove the images.")
    if extra := tuple(sorted(masks.keys() - images.keys())):
        yield Finding(split, "Masks without an image", extra, "Add the images or remove the masks.")

    found: dict[tuple[str, str, bool], list[str]] = defaultdict(list)
    with ThreadPoolExecutor() as pool:
        checked = pool.map(lambda key: list(_check_files(data, images[key], masks.get(key))), sorted(images))
        for problems in checked:
            for name, problem, fix, fatal in problems:
                found[problem, fix, fatal].append(name)
    for (problem, fix, fatal), names in found.items():
        yield Finding(split, problem, tuple(names), fix, fatal)


def _check_files(data: FileDataModule, image: Path, mask: Path | None) -> Iterator[tuple[str, str, str, bool]]:
    """(file, problem, fix, fatal) for all that is wrong with an image and its mask."""
    shapes = []
    for read, path in ((read_image, image), (data.read_mask, mask)):
        if path is None:
            continue
        try:
            shapes.append(read(path).shape[:2])
        except BadFile as error:
            yield from _problems(error)
    for problem, how in _handled(image):
        yield image.name, problem, how, False
    if mask is not None and len(shapes) == 2:
        try:
            require_same_size(shapes[0], shapes[1], mask)
        except BadFile as error:
            yield from _problems(error)


def _problems(error: BadFile) -> Iterator[tuple[str, str, str, bool]]:
    name = f"{error.path.name} ({error.detail})" if error.detail else error.path.name
    for problem in error.problems:
        yield name, problem, error.fix, True


def _handled(path: Path) -> Iterator[tuple[str, str]]:
    """What differs from a plain RGB image and is taken care of."""
    try:
        with Image.open(path) as image:
            if image.mode in ("L", "LA", "1"):
                yield "Greyscale", "Taken as RGB with three equal channels."
            if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
                yield "Alpha channel", "Dropped."
            if image.getexif().get(0x0112, 1) != 1:
                yield "Rotated by EXIF", "Turned upright; the mask must be upright too."
    except (OSError, SyntaxError, ValueError):
        return  # reported by read_image
