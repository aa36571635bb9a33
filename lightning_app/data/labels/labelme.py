"""LabelMe: one JSON beside each picture."""

import base64
import binascii
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightning_app.data import coco, coco_records
from lightning_app.data.bad_file import BadFile
from lightning_app.data.images import read_header
from lightning_app.data.labels.records import Export, LabelledImage, LabelledObject, Pictures, split_of
from lightning_app.data.rle import RLE, Polygons, encode

CORNERS = 64  # of a circle drawn as a polygon
MOST_BYTES = 2**26  # of a mask in a file


def read(files: list[Path], root: Path) -> Export:
    """All files of one export: polygons, rectangles, circles and masks; shapes of one group are one object.

    Raises:
        BadFile: one of them cannot be used.
    """
    export, pictures = Export(), Pictures(root)
    for path in files:
        content = coco.read_json(path)
        if not is_labelme(content):
            raise BadFile(path, ("No LabelMe file",), 'It has no list of "shapes" and no "imagePath".')
        picture = pictures.find(content["imagePath"], path.parent, path)
        height, width = read_header(picture).size
        objects: dict[Any, tuple[str, Polygons | RLE]] = {}
        for place, shape in enumerate(content["shapes"]):
            _take(shape, place, path, (height, width), objects, export)
        found = [LabelledObject(export.name(name), outline) for name, outline in objects.values()]
        export.images.append(LabelledImage(picture, height, width, found, split_of(path, root)))
    export.names.sort()
    return export


def is_labelme(content: Any) -> bool:
    """Whether a JSON is one of LabelMe's."""
    return (
        isinstance(content, dict)
        and isinstance(content.get("shapes"), list)
        and isinstance(content.get("imagePath"), str)
    )


def _take(
    shape: Any,
    place: int,
    path: Path,
    size: tuple[int, int],
    objects: dict[Any, tuple[str, Polygons | RLE]],
    export: Export,
) -> None:
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
        raise BadFile(path, ("A shape without a label",), "Name it in LabelMe.", f"shape {place}")
    name, kind, group = shape["label"].strip(), shape.get("shape_type", "polygon"), shape.get("group_id")
    if kind not in ("polygon", "rectangle", "circle", "mask"):
        export.leave_out(f"shapes of type {coco_records.shown(kind)}")
        return
    points = shape.get("points")
    if not isinstance(points, list) or not all(coco_records.numbers(point) and len(point) == 2 for point in points):
        raise BadFile(path, ("Points that are no pairs of numbers",), "Draw the shape again.", f"shape {place}")
    outline = _mask(shape, points, size, path) if kind == "mask" else _polygon(kind, points)
    if not outline:
        export.leave_out("shapes of too few points")
        return
    key = place if not isinstance(group, int) else ("group", group, name)
    known = objects.get(key)
    if known is not None and isinstance(known[1], list) and isinstance(outline, list):
        outline = known[1] + outline
    objects[key] = (name, outline)


def _polygon(kind: str, points: list[list[float]]) -> Polygons:
    if kind == "polygon":
        return [[each for point in points for each in point]] if len(points) >= 3 else []
    if len(points) < 2:
        return []
    (left, top), (right, bottom) = points[:2]
    if kind == "rectangle":
        return [[left, top, right, top, right, bottom, left, bottom]]
    radius = math.hypot(right - left, bottom - top)  # the second point is on the circle
    angles = [2 * math.pi * step / CORNERS for step in range(CORNERS)]
    return [[each for a in angles for each in (left + radius * math.cos(a), top + radius * math.sin(a))]]


def _mask(shape: dict[str, Any], points: list[list[float]], size: tuple[int, int], path: Path) -> RLE | Polygons:
    """A mask is a PNG in base64, whose upper left corner is the first point."""
    text = shape.get("mask")
    if not isinstance(text, str) or len(text) > MOST_BYTES or not points:
        return []
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as image:
            if image.width > size[1] or image.height > size[0]:
                raise ValueError(f"{image.width}x{image.height}, larger than the picture")
            part = np.array(image.convert("L")) > 0
    except (binascii.Error, ValueError, OSError, SyntaxError) as error:
        raise BadFile(path, ("A mask that is no PNG",), "Draw it again.", coco_records.shown(error)) from None
    left, top = (round(each) for each in points[0])
    whole = np.zeros(size, dtype=bool)
    window = whole[max(top, 0) : top + part.shape[0], max(left, 0) : left + part.shape[1]]
    window[:] = part[max(-top, 0) :, max(-left, 0) :][: window.shape[0], : window.shape[1]]
    return encode(whole)
