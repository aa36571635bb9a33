"""What is wrong with keypoints and their pictures, found before any training, and what there is of each keypoint."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from lightning_app.data.bad_file import BadFile
from lightning_app.data.coco import CocoFile
from lightning_app.data.coco_records import CocoAnnotation, CocoImage
from lightning_app.data.findings import Checked, Finding, Problem, Statistics, grouped, problems_of, said_sizes, shared
from lightning_app.data.images import read_image
from lightning_app.data.pose.boxes import is_usable
from lightning_app.data.pose.facts import Keypoints, pairs_by_name
from lightning_app.data.twins import Print
from lightning_app.util.errors import InputError

if TYPE_CHECKING:
    from lightning_app.data.pose.coco_keypoints import COCOKeypoints

BESIDE: Final = 0.1  # of a box's longer side by which points may lie outside it


def check(data: "COCOKeypoints") -> Checked:
    """Read every annotation and picture of the splits that ``data`` trains, validates and tests on."""
    findings: list[Finding] = []
    counts: dict[str, str] = {}
    prints: dict[str, list[Print]] = {}
    for split in dict.fromkeys(data.splits.values()):
        problems: list[Problem] = []
        try:
            file = data.parse(split, lambda problem, where, into=problems: into.append((where, problem, "", True)))  # type: ignore[misc]
            folder = data.folder(split)
            data.looked_at(split)  # reads the detections, where there are some
        except InputError as error:
            findings += [*grouped(split, problems), Finding(split, str(error).rstrip("."))]
            continue
        usable = sum(is_usable(each, image) for image in file.images for each in data.annotations(split, image))
        counts[split] = f"{len(file.images)} images, {usable} with keypoints in a box."
        if not usable:
            findings.append(Finding(split, "Nothing with a labelled keypoint in a box", fix="Give another file."))
        problems += _of_file(data, split, file)
        with ThreadPoolExecutor() as pool:
            read = list(pool.map(lambda image, folder=folder: _of_picture(folder, image), file.images))
        prints[split] = [mark for mark, _ in read if mark]
        problems += [problem for _, found in read for problem in found]
        findings += [*_of_facts(data.facts, split), *grouped(split, problems)]
    for one, other in combinations(prints, 2):
        findings += shared(f"{one} and {other}", prints[one], prints[other])
    return Checked(counts, findings)


def statistics(data: "COCOKeypoints", split: str) -> Statistics:
    """How often each keypoint is labelled, and hidden, and what OKS and a mirror make of it."""
    file = data.file(split)
    mine = [each for image in file.images for each in data.annotations(split, image) if is_usable(each, image)]
    if not mine:
        raise InputError(f"{file.path} has no labelled keypoint in a box. (contextzoo data check)")
    visible = np.array([each.keypoints[2::3] for each in mine])
    facts, order = data.facts, data.facts.flip_indices
    rows = [
        (
            name,
            f"{100 * (visible[:, place] > 0).mean():.1f}",
            f"{100 * (visible[:, place] == 1).mean():.1f}",
            f"{facts.sigmas[place]:g}",
            facts.names[order[place]] if order[place] != place else "",
        )
        for place, name in enumerate(facts.names)
    ]
    sides = np.array([each.bbox[2:] for each in mine]).max(1)
    lines = [
        f"{len(mine)} {data.class_names[0]} with keypoints in {len(file.images)} images, labelled at the median: "
        f"{np.median((visible > 0).sum(1)):.0f} of {len(facts.names)}",
        f"longer side of a box: median {np.median(sides):.0f} pixels, {sides.min():.0f} to {sides.max():.0f}",
        *said_sizes([(image.height, image.width) for image in file.images]),
    ]
    return Statistics(("keypoint", "labelled %", "hidden %", "sigma", "mirrored"), rows, lines)


def _of_file(data: "COCOKeypoints", split: str, file: CocoFile) -> Iterator[Problem]:
    for image in file.images:
        here = data.annotations(split, image)
        for each in here:
            for problem, fix, fatal in _of_annotation(each, image):
                yield f"annotation {each.id} in {image.file_name}", problem, fix, fatal
        if data.boxes == "whole" and sum(is_usable(each, image) for each in here) > 1:
            yield image.file_name, "Several in a picture that is looked at as a whole", "Give --data.boxes truth.", True


def _of_facts(facts: Keypoints, split: str) -> Iterator[Finding]:
    """Mirror pairs that the names speak against."""
    by_name = {frozenset(pair) for pair in pairs_by_name(facts.names)}
    given = {frozenset(pair) for pair in facts.flip_pairs}
    named = {point for pair in by_name for point in pair}
    wrong = [pair for pair in given if pair & named and pair not in by_name]
    alone = [pair for pair in by_name if given and not any(pair & other for other in given)]
    fix = "A mirrored picture teaches left for right: correct info.flip_pairs."
    for problem, pairs in (
        ("Flip pairs that their names do not pair", wrong),
        ("Left and right without a pair", alone),
    ):
        if pairs:
            names = tuple(" and ".join(facts.names[point] for point in sorted(pair)) for pair in sorted(pairs, key=min))
            yield Finding(split, problem, names, fix)


def _of_annotation(each: CocoAnnotation, image: CocoImage) -> Iterator[tuple[str, str, bool]]:
    """Problem, fix, and whether it is fatal."""
    points = np.array(each.keypoints).reshape(-1, 3)
    labelled = points[:, 2] > 0
    if each.iscrowd or not labelled.any():
        return
    x, y, width, height = each.bbox
    if each.area <= 0:
        yield "Area 0", "OKS divides by it: give the outline's, or 0.53 of the box.", True
    elif not each.empty and each.area > 1.02 * width * height:
        yield "An area larger than the box", "OKS forgives too much: correct it.", False
    if each.empty:
        yield "A box without a side", "It is left out: draw it again.", False
    marked = points[labelled, :2]
    if (marked == 0).all(1).any():
        yield "Labelled at 0, 0", "Set v to 0 where a keypoint was not marked.", True
    if (points[~labelled, :2] != 0).any():
        yield "A place that is said not to be labelled", "It is not learned: set v to 1 or 2 if it was marked.", False
    if (marked < -1).any() or (marked > (image.width, image.height)).any():
        yield "Keypoints outside the picture", "Mark them again, or set v to 0.", True
    elif not each.empty:
        margin = BESIDE * max(width, height)
        if (marked < (x - margin, y - margin)).any() or (marked > (x + width + margin, y + height + margin)).any():
            yield "Keypoints outside the box", "The crop may not show them: draw the box round all of it.", False


def _of_picture(folder: Path, image: CocoImage) -> tuple[Print | None, list[Problem]]:
    """A picture's print, and what is wrong with its file."""
    try:
        pixels = read_image(folder / image.file_name)
    except BadFile as error:
        return None, list(problems_of(error))
    height, width = pixels.shape[:2]
    said: list[Problem] = []
    if (height, width) != (image.height, image.width):
        detail = f"{image.file_name} ({width}x{height} vs {image.width}x{image.height})"
        said.append((detail, "Another size than its annotations say", "Mark it again.", True))
    return Print.of(image.file_name, pixels), said
