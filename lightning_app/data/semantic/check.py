"""All that is wrong with a dataset's files, found before any training."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

from lightning_app.data.bad_file import BadFile
from lightning_app.data.findings import Checked, Finding, Problem, grouped, handled, problems_of, shared
from lightning_app.data.images import read_header, read_image, require_same_size
from lightning_app.data.listing import Listing, require
from lightning_app.data.masks import LOSSY
from lightning_app.data.semantic.pairs import FileDataModule
from lightning_app.data.twins import Print
from lightning_app.util.errors import InputError


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


def checked(data: FileDataModule) -> Checked:
    """What is wrong with a dataset, and how many images and masks each of its splits has."""
    findings = check(data)
    found = {}
    for split in dict.fromkeys(data.splits.values()):
        try:
            images, masks = data.listing(split)
        except InputError:
            continue
        official = data.facts.splits.get(split, len(images))
        found[split] = f"{len(images)} images, {len(masks)} masks."
        found[split] += f" The official split has {official}." if official != len(images) else ""
    return Checked(found, findings)


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

    found: list[Problem] = []
    with ThreadPoolExecutor() as pool:
        checked = pool.map(lambda key: _check_files(data, images[key], masks.get(key)), sorted(images))
        for mark, problems in checked:
            prints += [mark] if mark else []
            found += problems
    yield from grouped(split, found)


def _check_files(data: FileDataModule, image: Path, mask: Path | None) -> tuple[Print | None, list[Problem]]:
    """The image's print and all that is wrong with it and its mask."""
    problems: list[Problem] = []
    pixels = ids = None
    try:
        pixels = read_image(image)
        problems += ((image.name, *said, False) for said in handled(read_header(image)))
    except BadFile as error:
        problems += problems_of(error)
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
        problems += problems_of(error)
    return None if pixels is None else Print.of(image.name, pixels), problems
