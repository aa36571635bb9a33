"""COCO's JSON of instances and keypoints, read as plain data: nothing that a file says is believed unchecked."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeGuard, TypeVar

import numpy as np

from lightning_app.data.images import BadFile, max_pixels, regular_file
from lightning_app.data.rle import RLE, Polygons, area, box, compressed, runs_of, to_rle
from lightning_app.util.errors import InputError, suggest

MAX_BYTES: Final = 2**31  # COCO's largest file has half a gigabyte
MAX_OUTLINE: Final = 5 * 10**6  # pixels along the polygons of one instance; they are drawn five times as fine
POSE_SHARE: Final = 0.53  # of its box that a person covers
EXPORT: Final = "Export it again as COCO JSON, or correct it by hand."

Fault = Callable[[str, str], None]  # what is wrong, worded so that like problems can be counted together; and where
T = TypeVar("T", "CocoCategory", "CocoImage", "CocoAnnotation")


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


@dataclass(frozen=True)
class CocoFile:
    """All of one file, in the order of ids: categories, images, and the annotations of each image."""

    path: Path
    categories: tuple[CocoCategory, ...]
    images: tuple[CocoImage, ...]
    annotations: Mapping[int, tuple[CocoAnnotation, ...]] = field(repr=False)
    info: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def class_names(self) -> list[str]:
        """In the order of the labels 0, 1, ..."""
        return [category.name for category in self.categories]

    @property
    def labels(self) -> dict[int, int]:
        """Category id, which may have holes and start anywhere -> label."""
        return {category.id: label for label, category in enumerate(self.categories)}

    def of(self, image: CocoImage) -> tuple[CocoAnnotation, ...]:
        """What is annotated in an image."""
        return self.annotations.get(image.id, ())

    def with_classes(self, names: Sequence[str]) -> "CocoFile":
        """The classes of these names alone, in the order of their ids; all images stay.

        Raises:
            InputError: there is no such class.
        """
        known = set(self.class_names)
        for name in names:
            if name not in known:
                shown = ", ".join(self.class_names[:8]) + (", ..." if len(known) > 8 else "")
                raise InputError(f'{self.path} has no class "{name}".{suggest(name, known)} (it has {shown})')
        chosen = tuple(category for category in self.categories if category.name in set(names))
        ids = {category.id for category in chosen}
        kept = {
            image: tuple(each for each in found if each.category_id in ids) for image, found in self.annotations.items()
        }
        return CocoFile(self.path, chosen, self.images, kept, self.info)


def read(path: Path) -> CocoFile:
    """A file of which all can be used.

    Raises:
        BadFile: its first fault.
    """

    def stop(problem: str, where: str) -> None:
        raise BadFile(path, (problem,), EXPORT, where)

    return parse(path, stop)


def parse(path: Path, fault: Fault) -> CocoFile:
    """What can be used of a file; ``fault`` is told of all else, and may raise.

    Raises:
        BadFile: it is no COCO JSON at all.
    """
    return parse_content(read_json(path), path, fault)


def parse_content(content: Any, path: Path, fault: Fault) -> CocoFile:
    """The same of what ``path`` holds.

    Raises:
        BadFile: it is no COCO JSON at all.
    """
    for name in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise BadFile(path, (f'No list of "{name}"',), "Give a COCO JSON of instances or keypoints.")
    categories = {each.id: each for each in _unique(content["categories"], "category", _category, fault)}
    images = {each.id: each for each in _unique(content["images"], "image", _image, fault)}
    annotations: dict[int, list[CocoAnnotation]] = {}
    for place, each in enumerate(content["annotations"], 1):  # where ids are missing, they count from 1
        if isinstance(each, dict):
            each.setdefault("id", place)
    read_one = _AnnotationReader(images, categories)
    for annotation in _unique(content["annotations"], "annotation", read_one, fault):
        annotations.setdefault(annotation.image_id, []).append(annotation)
    info = content.get("info")
    return CocoFile(
        path,
        tuple(sorted(categories.values(), key=lambda each: each.id)),
        tuple(sorted(images.values(), key=lambda each: each.id)),
        {image: tuple(found) for image, found in annotations.items()},
        info if isinstance(info, dict) else {},
    )


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        BadFile: it is none, or too large.
    """
    with regular_file(path) as file:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise BadFile(path, ("Too large",), "Split it.", f"{size} bytes, and the limit is {MAX_BYTES}")
        try:
            return json.loads(file.read().decode("utf-8-sig"), parse_constant=float)
        except UnicodeDecodeError:
            raise BadFile(path, ("No UTF-8 text",), "Save it as UTF-8.") from None
        except (ValueError, RecursionError) as error:
            raise BadFile(path, ("Not JSON",), "Get the file again.", str(error)) from None


def _unique(records: Iterable[Any], what: str, make: Callable[[dict[str, Any]], T], fault: Fault) -> Iterable[T]:
    """Each record that can be used, the first one of an id."""
    seen: set[int] = set()
    for place, record in enumerate(records):
        where = f"{what} {place} of the list"
        if not isinstance(record, dict):
            fault(f"A {what} that is no object", where)
            continue
        if not is_whole(record.get("id")):
            fault(f"An id of {what} that is no whole number", f"{where}: {shown(record.get('id'))}")
            continue
        where = f"{what} {record['id']}"
        if record["id"] in seen:
            fault("An id that comes twice", where)
            continue
        try:
            made = make(record)
        except _Bad as bad:
            fault(str(bad), f"{where}: {bad.detail}" if bad.detail else where)
            continue
        seen.add(made.id)
        yield made


class _Bad(Exception):
    """What is wrong with one record."""

    def __init__(self, problem: str, value: object = "") -> None:
        super().__init__(problem)
        self.detail = value if isinstance(value, str) and not value else shown(value)


def _category(record: dict[str, Any]) -> CocoCategory:
    name, points = record.get("name"), record.get("keypoints") or []
    if not isinstance(name, str) or not name.strip():
        raise _Bad("A category without a name")
    if not isinstance(points, list) or not all(isinstance(each, str) for each in points):
        raise _Bad("Keypoints of a category that are no list of names", points)
    skeleton = record.get("skeleton") or []
    for pair in skeleton if isinstance(skeleton, list) else [skeleton]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(is_whole(each) for each in pair)):
            raise _Bad("A skeleton that is no list of pairs of whole numbers", pair)
        if not all(1 <= each <= len(points) for each in pair):
            raise _Bad(f"A skeleton that names a keypoint beyond 1 to {len(points)}", pair)
    return CocoCategory(record["id"], name.strip(), tuple(points), tuple((a - 1, b - 1) for a, b in skeleton))


def _image(record: dict[str, Any]) -> CocoImage:
    name, height, width = record.get("file_name"), record.get("height"), record.get("width")
    if not isinstance(name, str) or not name.strip("/ ") or "\0" in name:
        raise _Bad("An image without a file_name", name)
    name = name.replace("\\", "/")  # of tools on Windows
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise _Bad("A file_name that leads out of the folder of images", name)
    if not (is_whole(height) and is_whole(width) and height > 0 and width > 0):
        raise _Bad("An image whose height or width is no whole number above 0", f"{shown(height)}, {shown(width)}")
    if height * width > max_pixels():
        raise _Bad("An image of too many pixels", f"{width}x{height}")
    return CocoImage(record["id"], name, height, width)


class _AnnotationReader:
    """Makes annotations of the images and categories that a file has."""

    def __init__(self, images: Mapping[int, CocoImage], categories: Mapping[int, CocoCategory]) -> None:
        self.images, self.categories = images, categories

    def __call__(self, record: dict[str, Any]) -> CocoAnnotation:
        image, category = record.get("image_id"), record.get("category_id")
        if not is_whole(image) or image not in self.images:
            raise _Bad("An annotation of an image that is not in the file", image)
        if not is_whole(category) or category not in self.categories:
            raise _Bad("An annotation of a category that is not in the file", category)
        if (crowd := record.get("iscrowd", 0)) not in (0, 1):
            raise _Bad("An iscrowd other than 0 and 1", crowd)
        height, width = self.images[image].height, self.images[image].width
        segmentation = _segmentation(record.get("segmentation"), height, width)
        points = _keypoints(record.get("keypoints"), len(self.categories[category].keypoints))
        sides, size = record.get("bbox"), record.get("area")
        if sides is None:
            if segmentation is None and not points:
                raise _Bad("An annotation with neither bbox nor segmentation")
            sides = [0, 0, width, height] if segmentation is None else box(to_rle(segmentation, height, width))
        if not numbers(sides) or len(sides) != 4:
            raise _Bad("A bbox that is not four numbers", sides)
        if size is None and segmentation is not None:
            size = area(to_rle(segmentation, height, width))
        elif size is None:
            size = sides[2] * sides[3] * (POSE_SHARE if points else 1)
        if not numbers([size]):
            raise _Bad("An area that is no number", size)
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
        raise _Bad("A segmentation that is neither polygons nor an RLE", value)
    if any(len(polygon) % 2 for polygon in value):
        raise _Bad("A polygon with an odd number of coordinates")
    polygons = [[float(each) for each in polygon] for polygon in value if len(polygon) >= 6]
    outline = 0.0
    for polygon in polygons:
        xs, ys = np.array(polygon[::2]), np.array(polygon[1::2])
        if xs.min() < -width or ys.min() < -height or xs.max() > 2 * width or ys.max() > 2 * height:
            raise _Bad("A polygon that goes further from the image than the image is large")
        outline += float(np.maximum(abs(xs - np.roll(xs, 1)), abs(ys - np.roll(ys, 1))).sum())
    if outline > MAX_OUTLINE:
        raise _Bad("Polygons too long to be drawn", f"{outline:.0f} pixels, and the limit is {MAX_OUTLINE}")
    return polygons or None


def _rle(value: dict[str, Any], height: int, width: int) -> RLE:
    """Checked to its end, since a damaged one would be met in the midst of a training."""
    size, counts = value.get("size"), value.get("counts")
    if size != [height, width]:
        raise _Bad(f"An RLE of another size than its image's {height}, {width}", size)
    if isinstance(counts, str):
        try:
            runs = runs_of(counts)
        except ValueError:
            raise _Bad("A damaged RLE", counts) from None
    elif isinstance(counts, list) and all(is_whole(each) for each in counts):
        runs = counts
    else:
        raise _Bad("An RLE without counts", counts)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise _Bad("A damaged RLE: its runs do not add up to its image's pixels", sum(runs))
    return (
        {"size": [height, width], "counts": counts.encode()}
        if isinstance(counts, str)
        else compressed(runs, height, width)
    )


def _keypoints(value: Any, count: int) -> tuple[float, ...]:
    if not value:
        return ()
    if not numbers(value) or len(value) != 3 * count:
        raise _Bad(f"Keypoints that are not {count} times x, y, v", value)
    if not all(v in (0, 1, 2) for v in value[2::3]):
        raise _Bad("A keypoint whose v is none of 0, 1, 2", value[2::3])
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
