"""All that is wrong with a dataset's files, found before any training."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from lightning_app.data.images import BadFile, Header, read_header, read_image, require_same_size
from lightning_app.data.listing import Listing, require
from lightning_app.data.masks import LOSSY
from lightning_app.data.semantic.pairs import FileDataModule
from lightning_app.data.twins import Print, twins
from lightning_app.util.errors import InputError

Problem = tuple[str, str, str, bool]  # file, what is wrong, fix, fatal
SHOWN = 5  # files named per problem


@dataclass(frozen=True)
class Finding:
    """One problem of one split and the files that have it.

    ``fatal`` ones stop a training or make its score worthless; the others are handled and only said.
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
    prints: dict[str, list[Print]] = {}
    for split in dict.fromkeys(data.splits.values()):
        try:
            images, masks = data.listing(split)
        except InputError as error:
            # an official test split that was not downloaded is no fault of the files that were
            stages = [stage for stage in data.splits if data.splits[stage] == split]
            optional = stages == ["test"] and split == data.facts.test_split
            findings.append(Finding(split, str(error).rstrip("."), fatal=not optional))
            continue
        prints[split] = []
        findings += _check_split(data, split, images, masks, prints[split])
    for one, other in combinations(prints, 2):
        findings += shared(f"{one} and {other}", prints[one], prints[other])
    return findings


def shared(split: str, here: list[Print], there: list[Print]) -> Iterator[Finding]:
    """The pictures of one split that are in another as well, whatever they are called there."""
    fix = "Keep each photo in one split: a score on pictures that were trained on says nothing."
    same: list[str] = []
    alike: list[str] = []
    for first, second in twins(here, there):
        (same if first.digest == second.digest else alike).append(f"{first.name} = {second.name}")
    if same:
        yield Finding(split, "The same photo", tuple(same), fix)
    if alike:
        yield Finding(
            split, "Almost the same photo", tuple(alike), "Look whether they are one photo saved twice.", False
        )


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
    data: FileDataModule, split: str, images: Mapping[str, Path], masks: Mapping[str, Path], prints: list[Print]
) -> Iterator[Finding]:
    """What is wrong with one split; ``prints`` is given those of its images."""
    if not images:
        yield Finding(split, "No images", fix="Give the right --data.root.")
    for kind, listing in (("images", images), ("masks", masks)):
        if isinstance(listing, Listing) and listing.clashes:
            names = tuple(" and ".join(path.name for path in paths) for paths in listing.clashes.values())
            yield Finding(split, f"Two {kind} of one name", names, "Remove one of them.")
        if isinstance(listing, Listing) and listing.left_out:
            yield Finding(split, f"{kind.capitalize()}: {listing.left_out}", fatal=False)
    if missing := tuple(sorted(images.keys() - masks.keys())):
        yield Finding(split, "Missing masks", missing, "Add the masks or remove the images.")
    if extra := tuple(sorted(masks.keys() - images.keys())):
        yield Finding(split, "Masks without an image", extra, "Add the images or remove the masks.")

    found: dict[tuple[str, str, bool], list[str]] = defaultdict(list)
    with ThreadPoolExecutor() as pool:
        checked = pool.map(lambda key: _check_files(data, images[key], masks.get(key)), sorted(images))
        for mark, problems in checked:
            prints += [mark] if mark else []
            for name, problem, fix, fatal in problems:
                found[problem, fix, fatal].append(name)
    for (problem, fix, fatal), names_of_files in found.items():
        yield Finding(split, problem, tuple(names_of_files), fix, fatal)


def _check_files(data: FileDataModule, image: Path, mask: Path | None) -> tuple[Print | None, list[Problem]]:
    """The image's print and all that is wrong with it and its mask."""
    problems: list[Problem] = []
    pixels = ids = None
    try:
        pixels = read_image(image)
        problems += ((image.name, *said, False) for said in _handled(read_header(image)))
    except BadFile as error:
        problems += _problems(error)
    if mask is None:
        return None if pixels is None else Print.of(image.name, pixels), problems
    try:
        ids = data.read_mask(mask)
        if (ids == data.ignore_index).all():
            problems.append((mask.name, "Nothing labelled", "All of the mask is ignored.", False))
        if mask.suffix != ".mat" and read_header(mask).lossy:
            problems.append((mask.name, LOSSY, "All its values are classes; check the borders.", False))
        if pixels is not None:
            require_same_size(pixels.shape[:2], ids.shape, mask)
    except BadFile as error:
        problems += _problems(error)
    return None if pixels is None else Print.of(image.name, pixels), problems


def _problems(error: BadFile) -> Iterator[Problem]:
    name = f"{error.path.name} ({error.detail})" if error.detail else error.path.name
    for problem in error.problems:
        yield name, problem, error.fix, True


def _handled(header: Header) -> Iterator[tuple[str, str]]:
    """What differs from a plain RGB image and is taken care of."""
    if header.mode in ("L", "LA", "1"):
        yield "Greyscale", "Taken as RGB with three equal channels."
    if header.mode in ("CMYK", "YCCK"):
        yield "CMYK, of printing", "Made RGB without its colour profile: colours differ a little from the print's."
    if header.alpha:
        yield "Alpha channel", "Dropped."
    if header.orientation != 1:
        yield "Rotated by EXIF", "Turned upright; the mask must be upright too."
