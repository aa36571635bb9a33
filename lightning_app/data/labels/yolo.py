"""YOLO: one text beside each picture; a line is a class number and an outline, or a box, in shares of the picture."""

from pathlib import Path
from typing import Any, Final

import yaml

from lightning_app.data import coco_records
from lightning_app.data.bad_file import BadFile, regular_file
from lightning_app.data.images import read_header
from lightning_app.data.labels.records import Export, LabelledImage, LabelledObject, split_of
from lightning_app.data.listing import read_list
from lightning_app.data.picture_files import SUFFIXES

LISTS: Final = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names")
FIX: Final = "A line is a class number and x y pairs from 0 to 1, or x y width height of a box."
MOST_BYTES: Final = 2**26


def read(root: Path) -> Export:
    """``images/`` and ``labels/`` side by side, also below a split's folder; names in data.yaml or classes.txt.

    Raises:
        BadFile: a line, or the list of names, cannot be used.
    """
    export = Export(names=_names(root))
    paths = [
        path for path in sorted(root.rglob("*")) if path.suffix.lower() in SUFFIXES and "images" in _folders(path, root)
    ]
    for path in paths:
        labels = _labels(path, root)
        height, width = read_header(path).size
        objects = []
        if labels.exists():
            for number, line in enumerate(_lines(labels), 1):
                if line.strip():
                    objects.append(_object(line, number, labels, (height, width), export.names))
        export.images.append(LabelledImage(path, height, width, objects, split_of(path, root)))
    return export


def _lines(path: Path) -> list[str]:
    with regular_file(path) as file:
        text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise BadFile(path, ("Too large",), "Split it.")
    return text.decode("utf-8-sig", errors="replace").splitlines()


def _folders(path: Path, root: Path) -> tuple[str, ...]:
    return path.relative_to(root).parts[:-1]


def _labels(path: Path, root: Path) -> Path:
    """The text of a picture: ``labels`` in place of the last ``images`` in its path."""
    parts = list(path.relative_to(root).with_suffix(".txt").parts)
    place = max(place for place, part in enumerate(parts[:-1]) if part == "images")
    parts[place] = "labels"
    return root.joinpath(*parts)


def _object(line: str, number: int, path: Path, size: tuple[int, int], names: list[str]) -> LabelledObject:
    words = line.split()
    try:
        values = [float(word) for word in words[1:]]
        label = int(words[0])
    except ValueError:
        values, label = [], -1
    if label < 0 or len(values) % 2 or len(values) < 4 or not all(-1 <= each <= 2 for each in values):
        raise BadFile(path, ("A line that is no object",), FIX, f"line {number}: {coco_records.shown(line)}")
    if label >= len(names):
        fix = "Name all classes in data.yaml or classes.txt."
        raise BadFile(path, (f"Class {label}, and names for 0 to {len(names) - 1}",), fix, f"line {number}")
    height, width = size
    scaled = [each * side for each, side in zip(values, (width, height) * (len(values) // 2), strict=True)]
    if len(values) == 4:
        x, y, w, h = scaled
        return LabelledObject(names[label], None, (x - w / 2, y - h / 2, w, h))
    return LabelledObject(names[label], [scaled])


def _names(root: Path) -> list[str]:
    for name in LISTS:
        path = root / name
        if not path.exists():
            continue
        if path.suffix != ".yaml":
            return read_list(path)
        with regular_file(path) as file:
            try:
                content: Any = yaml.safe_load(file.read(MOST_BYTES))
            except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
                raise BadFile(path, ("Not YAML",), "Export it again.", coco_records.shown(error)) from None
        found = content.get("names") if isinstance(content, dict) else None
        if isinstance(found, dict) and sorted(found, key=str) == sorted(range(len(found)), key=str):
            found = [found[number] for number in range(len(found))]
        if isinstance(found, list) and found and all(isinstance(each, str) for each in found):
            return [str(each) for each in found]
        raise BadFile(path, ('No "names" of the classes',), "Write a list of them there.")
    raise BadFile(root, ("No names of the classes",), f"Write them into {LISTS[0]} (names: [...]) or {LISTS[2]}.")
