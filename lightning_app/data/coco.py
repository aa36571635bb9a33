"""COCO's JSON of instances and keypoints, read as plain data: nothing that a file says is believed unchecked."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from lightning_app.data.bad_file import BadFile, regular_file
from lightning_app.data.coco_records import (
    AnnotationReader,
    Bad,
    CocoAnnotation,
    CocoCategory,
    CocoImage,
    category,
    image_of,
    is_whole,
    shown,
)
from lightning_app.util.errors import InputError, suggest

MAX_BYTES: Final = 2**31  # COCO's largest file has half a gigabyte
EXPORT: Final = "Export it again as COCO JSON, or correct it by hand."

Fault = Callable[[str, str], None]  # what is wrong, worded so that like problems can be counted together; and where
T = TypeVar("T", "CocoCategory", "CocoImage", "CocoAnnotation")


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
    categories = {each.id: each for each in _unique(content["categories"], "category", category, fault)}
    images = {each.id: each for each in _unique(content["images"], "image", image_of, fault)}
    annotations: dict[int, list[CocoAnnotation]] = {}
    for place, each in enumerate(content["annotations"], 1):  # where ids are missing, they count from 1
        if isinstance(each, dict):
            each.setdefault("id", place)
    read_one = AnnotationReader(images, categories)
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
            fault(f"An entry that is no {what}", where)
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
        except Bad as bad:
            fault(str(bad), f"{where}: {bad.detail}" if bad.detail else where)
            continue
        seen.add(made.id)
        yield made
