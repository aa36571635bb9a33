"""Categories, images and annotations of COCO's JSON: one record of each, of which nothing is believed unchecked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, TypeGuard

import numpy as np

from lightning_app.data.pixel_limit import max_pixels
from lightning_app.data.rle import RLE, Polygons, area, box, compressed, runs_of, to_rle

MAX_OUTLINE: Final = 5 * 10**6  # pixels along the polygons of one instance; they are drawn five times as fine

POSE_SHARE: Final = 0.53  # of its box that a person covers


@dataclass(frozen=True, slots=True)
class CocoCategory:
    """A class of a file. ``skeleton`` holds pairs of places in ``keypoints``, counted from 0 (in the file from 1)."""

    id: int
    name: str
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One image of a file; ``file_name`` is a path below the folder of images."""

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class CocoAnnotation:
    """One object in an image.

    Args:
        bbox: x, y, width, height in pixels, as the file says; of the outline where it does not, and of the whole image
            where keypoints are all that there is.
        area: of the object in pixels, as the file says; of its mask, else of its box, where it does not (of keypoints
            without a mask 0.53 of the box, as mmpose and CrowdPose have it).
        segmentation: polygons, each x1, y1, x2, y2, ..., or an RLE; none where there is no mask.
        keypoints: x, y, v of each, where v is 0 for not labelled, 1 for hidden, 2 for visible.
    """

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: bool = False
    segmentation: Polygons | RLE | None = None
    keypoints: tuple[float, ...] = ()

    @property
    def num_keypoints(self) -> int:
        """How many are labelled."""
        return sum(v > 0 for v in self.keypoints[2::3])

    @property
    def empty(self) -> bool:
        """Whether its box has no side to learn from; reversed boxes are empty too."""
        return self.bbox[2] <= 0 or self.bbox[3] <= 0


class Bad(Exception):
    """What is wrong with one record."""

    def __init__(self, problem: str, value: object = "") -> None:
        super().__init__(problem)
        self.detail = value if isinstance(value, str) and not value else shown(value)


def category(record: dict[str, Any]) -> CocoCategory:
    name, points = record.get("name"), record.get("keypoints") or []
    if not isinstance(name, str) or not name.strip():
        raise Bad("A category without a name")
    if not isinstance(points, list) or not all(isinstance(each, str) for each in points):
        raise Bad("Keypoints of a category that are no list of names", points)
    skeleton = record.get("skeleton") or []
    for pair in skeleton if isinstance(skeleton, list) else [skeleton]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(is_whole(each) for each in pair)):
            raise Bad("A skeleton that is no list of pairs of whole numbers", pair)
        if not all(1 <= each <= len(points) for each in pair):
            raise Bad(f"A skeleton that names a keypoint beyond 1 to {len(points)}", pair)
    return CocoCategory(record["id"], name.strip(), tuple(points), tuple((a - 1, b - 1) for a, b in skeleton))


def image_of(record: dict[str, Any]) -> CocoImage:
    name, height, width = record.get("file_name"), record.get("height"), record.get("width")
    if not isinstance(name, str) or not name.strip("/ ") or "\0" in name:
        raise Bad("An image without a file_name", name)
    name = name.replace("\\", "/")  # of tools on Windows
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise Bad("A file_name that leads out of the folder of images", name)
    if not (is_whole(height) and is_whole(width) and height > 0 and width > 0):
        raise Bad("An image whose height or width is no whole number above 0", f"{shown(height)}, {shown(width)}")
    if height * width > max_pixels():
        raise Bad("An image of too many pixels", f"{width}x{height}")
    return CocoImage(record["id"], name, height, width)


class AnnotationReader:
    """Makes annotations of the images and categories that a file has."""

    def __init__(self, images: Mapping[int, CocoImage], categories: Mapping[int, CocoCategory]) -> None:
        self.images, self.categories = images, categories

    def __call__(self, record: dict[str, Any]) -> CocoAnnotation:
        image, category = record.get("image_id"), record.get("category_id")
        if not is_whole(image) or image not in self.images:
            raise Bad("An annotation of an image that is not in the file", image)
        if not is_whole(category) or category not in self.categories:
            raise Bad("An annotation of a category that is not in the file", category)
        if (crowd := record.get("iscrowd", 0)) not in (0, 1):
            raise Bad("An iscrowd other than 0 and 1", crowd)
        height, width = self.images[image].height, self.images[image].width
        segmentation = _segmentation(record.get("segmentation"), height, width)
        points = _keypoints(record.get("keypoints"), len(self.categories[category].keypoints))
        sides, size = record.get("bbox"), record.get("area")
        if sides is None:
            if segmentation is None and not points:
                raise Bad("An annotation with neither bbox nor segmentation")
            sides = [0, 0, width, height] if segmentation is None else box(to_rle(segmentation, height, width))
        if not numbers(sides) or len(sides) != 4:
            raise Bad("A bbox that is not four numbers", sides)
        if size is None and segmentation is not None:
            size = area(to_rle(segmentation, height, width))
        elif size is None:
            size = sides[2] * sides[3] * (POSE_SHARE if points else 1)
        if not numbers([size]):
            raise Bad("An area that is no number", size)
        return CocoAnnotation(
            record["id"],
            image,
            category,
            (float(sides[0]), float(sides[1]), float(sides[2]), float(sides[3])),
            float(size),
            bool(crowd),
            segmentation,
            points,
        )


def _segmentation(value: Any, height: int, width: int) -> Polygons | RLE | None:
    """Polygons, or a compressed RLE of the image's size; none where nothing is outlined."""
    if not value:
        return None
    if isinstance(value, dict):
        return _rle(value, height, width)
    if isinstance(value, list) and numbers(value):  # some tools write one polygon without the list around it
        value = [value]
    if not isinstance(value, list) or not all(numbers(polygon) for polygon in value):
        raise Bad("A segmentation that is neither polygons nor an RLE", value)
    if any(len(polygon) % 2 for polygon in value):
        raise Bad("A polygon with an odd number of coordinates")
    polygons = [[float(each) for each in polygon] for polygon in value if len(polygon) >= 6]
    outline = 0.0
    for polygon in polygons:
        xs, ys = np.array(polygon[::2]), np.array(polygon[1::2])
        if xs.min() < -width or ys.min() < -height or xs.max() > 2 * width or ys.max() > 2 * height:
            raise Bad("A polygon that goes further from the image than the image is large")
        outline += float(np.maximum(abs(xs - np.roll(xs, 1)), abs(ys - np.roll(ys, 1))).sum())
    if outline > MAX_OUTLINE:
        raise Bad("Polygons too long to be drawn", f"{outline:.0f} pixels, and the limit is {MAX_OUTLINE}")
    return polygons or None


def _rle(value: dict[str, Any], height: int, width: int) -> RLE:
    """Checked to its end, since a damaged one would be met in the midst of a training."""
    size, counts = value.get("size"), value.get("counts")
    if size != [height, width]:
        raise Bad(f"An RLE of another size than its image's {height}, {width}", size)
    if isinstance(counts, str):
        try:
            runs = runs_of(counts)
        except ValueError:
            raise Bad("A damaged RLE", counts) from None
    elif isinstance(counts, list) and all(is_whole(each) for each in counts):
        runs = counts
    else:
        raise Bad("An RLE without counts", counts)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise Bad("A damaged RLE: its runs do not add up to its image's pixels", sum(runs))
    return (
        {"size": [height, width], "counts": counts.encode()}
        if isinstance(counts, str)
        else compressed(runs, height, width)
    )


def _keypoints(value: Any, count: int) -> tuple[float, ...]:
    if not value:
        return ()
    if not numbers(value) or len(value) != 3 * count:
        raise Bad(f"Keypoints that are not {count} times x, y, v", value)
    if not all(v in (0, 1, 2) for v in value[2::3]):
        raise Bad("A keypoint whose v is none of 0, 1, 2", value[2::3])
    return tuple(map(float, value))


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number that an index can hold."""
    return type(value) is int and abs(value) < 2**53


def numbers(value: Any) -> TypeGuard[list[float]]:
    """Whether it is a list of finite numbers."""
    return isinstance(value, list) and all(
        type(each) in (int, float) and abs(each) < 2**53 and math.isfinite(each) for each in value
    )


def shown(value: object) -> str:
    """A value from a file as a line of text can hold it."""
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
