"""All that is wrong with annotated objects and their pictures, and how many there are of what size."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np

from lightning_app.data.bad_file import BadFile
from lightning_app.data.coco import CocoFile
from lightning_app.data.coco_records import CocoAnnotation, CocoImage
from lightning_app.data.findings import (
    Checked,
    Finding,
    Problem,
    Statistics,
    grouped,
    handled,
    problems_of,
    said_sizes,
    shared,
)
from lightning_app.data.images import read_header, read_image
from lightning_app.data.instance.base import InstanceDataModule
from lightning_app.data.rle import area, box, to_rle
from lightning_app.data.twins import Print
from lightning_app.util.errors import InputError

MOST_RESULTS: Final = 100  # of an image, that COCO's AP looks at
SIZES: Final[Mapping[str, tuple[float, float]]] = {  # COCO's, by area in pixels
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, float("inf")),
}


def check(data: InstanceDataModule) -> Checked:
    """Read every annotation and picture of the splits that ``data`` trains, validates and tests on."""
    findings: list[Finding] = []
    counts: dict[str, str] = {}
    prints: dict[str, list[Print]] = {}
    for split in dict.fromkeys(data.splits.values()):
        problems: list[Problem] = []
        try:
            file = data.parse(split, lambda problem, where, into=problems: into.append((where, problem, "", True)))  # type: ignore[misc]
            folder = data.folder(split)
        except InputError as error:
            findings += [*grouped(split, problems), Finding(split, str(error).rstrip("."))]
            continue
        objects = sum(map(len, file.annotations.values()))
        counts[split] = f"{len(file.images)} images, {objects} objects."
        problems += _of_file(file, data)
        with ThreadPoolExecutor() as pool:
            read = list(pool.map(partial(_of_picture, folder), file.images))
        prints[split] = [mark for mark, _ in read if mark]
        problems += [problem for _, found in read for problem in found]
        findings += grouped(split, problems)
        findings += _of_set(split, file)
    for one, other in combinations(prints, 2):
        findings += shared(f"{one} and {other}", prints[one], prints[other])
    return Checked(counts, findings)


def statistics(file: CocoFile) -> Statistics:
    """How many objects of each class and size a split has."""
    objects = [each for found in file.annotations.values() for each in found if not each.iscrowd]
    rows = []
    for category in file.categories:
        mine = [each for each in objects if each.category_id == category.id]
        of_size = Counter(size for each in mine for size, (low, high) in SIZES.items() if low <= each.area < high)
        share = f"{100 * len(mine) / len(objects):.1f}" if objects else "-"
        median = f"{np.median([each.area for each in mine]) ** 0.5:.0f}" if mine else "-"
        rows.append((category.name, str(len(mine)), share, *(str(of_size[size]) for size in SIZES), median))
    per_image = [sum(not each.iscrowd for each in file.of(image)) for image in file.images]
    crowds = sum(each.iscrowd for found in file.annotations.values() for each in found)
    lines = [
        f"{len(file.images)} images, {len(objects)} objects, {crowds} crowds; small, medium and large as COCO has: "
        "up to 32x32 and 96x96 pixels"
    ]
    if per_image:
        empty = sum(count == 0 for count in per_image)
        lines.append(
            f"objects an image: median {np.median(per_image):.0f}, at most {max(per_image)}; {empty} images without any"
        )
        lines += said_sizes([(image.height, image.width) for image in file.images])
    return Statistics(("class", "objects", "share %", *SIZES, "median side"), rows, lines)


def _of_file(file: CocoFile, data: InstanceDataModule) -> Iterator[Problem]:
    """What is wrong with objects that can be read."""
    for image in file.images:
        for each in file.of(image):
            where = f"annotation {each.id} in {image.file_name}"
            for problem, fix, fatal in _of_object(each, image, masks=data.masks):
                yield where, problem, fix, fatal
    for name, count in Counter(image.file_name for image in file.images).items():
        if count > 1:
            yield name, "An image that is listed twice", "Put its objects together.", True
    for name, count in Counter(file.class_names).items():
        if count > 1:
            yield name, "Two categories of one name", "Choose with --data.classes, or rename one.", False


def _of_object(each: CocoAnnotation, image: CocoImage, *, masks: bool) -> Iterator[tuple[str, str, bool]]:
    x, y, width, height = each.bbox
    if width < 0 or height < 0:
        yield "A reversed box", "Write x, y, width, height.", True
    elif each.empty:
        yield "An empty box", "Remove it: nothing can find it.", True
    elif x >= image.width or y >= image.height or x + width <= 0 or y + height <= 0:
        yield "A box outside its image", "Write x, y, width, height in pixels.", True
    elif min(x, y) < -1 or x + width > image.width + 1 or y + height > image.height + 1:
        yield "A box that leaves its image", "Cut at the edge in training; scores take it as it is.", False
    if each.segmentation is None:
        if masks and not each.iscrowd:
            yield "No mask", "Outline it, or give --data.masks false for boxes alone.", True
        if each.area > 1.01 * abs(width * height) + 1:
            yield "An area larger than its box", "Objects are sorted into small, medium and large by it.", False
        return
    rle = to_rle(each.segmentation, image.height, image.width)
    pixels = area(rle)
    if not pixels:
        yield "A mask without a pixel", "Remove it, or outline what is there.", True
    elif abs(each.area - pixels) > 16 + 0.2 * pixels:
        yield "An area that is not its mask's", "Objects are sorted into small, medium and large by it.", False
    if pixels and not each.empty and _overlap(each.bbox, box(rle)) < 0.5:
        yield "A box that does not fit its mask", "Write x, y, width, height in pixels.", True


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """IoU of two boxes x, y, width, height."""
    sides = [
        min(one[place] + one[place + 2], other[place] + other[place + 2]) - max(one[place], other[place])
        for place in (0, 1)
    ]
    common = max(sides[0], 0) * max(sides[1], 0)
    return common / (one[2] * one[3] + other[2] * other[3] - common)


def _of_picture(folder: Path, image: CocoImage) -> tuple[Print | None, list[Problem]]:
    """The picture's print, and what is wrong with its file."""
    path = folder / image.file_name
    try:
        pixels = read_image(path)
        said: list[Problem] = [(image.file_name, *each, False) for each in handled(read_header(path))]
    except BadFile as error:
        return None, list(problems_of(error))
    if pixels.shape[:2] != (image.height, image.width):
        detail = f"{image.file_name} ({pixels.shape[1]}x{pixels.shape[0]} vs {image.width}x{image.height})"
        said.append((detail, "Another size than its annotations say", "Export them for the upright image.", True))
    return Print.of(image.file_name, pixels), said


def _of_set(split: str, file: CocoFile) -> Iterator[Finding]:
    """What concerns a file as a whole."""
    found = [each for objects in file.annotations.values() for each in objects]
    if not file.images:
        yield Finding(split, "No images", fix="Give the right --data.root.")
    if not found:
        yield Finding(split, "No objects", fix="Annotate some, or choose other classes.")
    if any(each.id == 0 for each in found):
        fix = "Renumber them from 1 for other tools: to the official code id 0 is no match. Here it is."
        yield Finding(split, "Annotation ids start at 0", (), fix, fatal=False)
    used = {each.category_id for each in found}
    if unused := tuple(each.name for each in file.categories if each.id not in used):
        yield Finding(split, "Classes without an object", unused, "Their AP is left out of the mean.", fatal=False)
    full = tuple(image.file_name for image in file.images if sum(not e.iscrowd for e in file.of(image)) > MOST_RESULTS)
    if full:
        fix = f"COCO's AP looks at {MOST_RESULTS} results an image and class: not all of these can be found."
        yield Finding(split, f"More than {MOST_RESULTS} objects", full, fix, fatal=False)
