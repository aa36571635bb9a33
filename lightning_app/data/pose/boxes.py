"""Where to look: boxes that people drew, boxes that a detector found, or the whole picture."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from lightning_app.data.bad_file import BadFile
from lightning_app.data.coco import read_json
from lightning_app.data.coco_records import CocoAnnotation, CocoImage, is_whole, numbers, shown

EXPORT = "Give COCO's results: a list of {image_id, category_id, bbox, score}."


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes in one photograph. Shape: corners (N, 4) as x1, y1, x2, y2; scores (N,); float64."""

    corners: Tensor
    scores: Tensor

    @classmethod
    def of(cls, corners: Iterable[Iterable[float]], scores: Iterable[float] | None = None) -> Self:
        """From numbers; without scores each counts as sure."""
        stacked = torch.tensor([list(each) for each in corners], dtype=torch.float64).reshape(-1, 4)
        sure = [1.0] * len(stacked)
        return cls(stacked, torch.tensor(sure if scores is None else list(scores), dtype=torch.float64))

    @classmethod
    def whole(cls, image: CocoImage) -> Self:
        """All of a photograph."""
        return cls.of([(0, 0, image.width, image.height)])


def is_usable(annotation: CocoAnnotation, image: CocoImage) -> bool:
    """Whether it can be learned from and looked at: a labelled point, a box in the picture, no crowd."""
    left, top, right, bottom = true_corners(annotation, image)
    return (
        annotation.num_keypoints > 0
        and not annotation.iscrowd
        and right > left
        and bottom > top
        and max(annotation.keypoints[0::3] + annotation.keypoints[1::3]) > 0
    )


def true_corners(annotation: CocoAnnotation, image: CocoImage) -> tuple[float, float, float, float]:
    """An annotation's box, cut at the last pixels of its photograph."""
    x, y, width, height = annotation.bbox
    right, bottom = image.width - 1, image.height - 1
    return min(max(x, 0), right), min(max(y, 0), bottom), min(max(x + width, 0), right), min(max(y + height, 0), bottom)


def read_detections(path: Path, images: Mapping[int, CocoImage], category: int | None) -> tuple[dict[int, Boxes], int]:
    """Image id -> what a detector found there, and how many boxes are of other images.

    The corners are x, y, x + w, y + h as they are, as mmpose and HRNet take them; boxes without a side are left out.

    Args:
        category: its boxes alone; None = all of them.

    Raises:
        BadFile: it is no such file.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise BadFile(path, ("No list of detections",), EXPORT)
    found: dict[int, list[tuple[list[float], float]]] = {}
    others = 0
    for place, each in enumerate(content):
        box, score = _checked(path, place, each)
        if category is not None and each.get("category_id") != category:
            continue
        if each["image_id"] not in images:
            others += 1
        elif box[2] > 0 and box[3] > 0:
            corners = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
            found.setdefault(each["image_id"], []).append((corners, score))
    boxes = {image: Boxes.of((c for c, _ in here), (s for _, s in here)) for image, here in found.items()}
    return boxes, others


def _checked(path: Path, place: int, record: Any) -> tuple[list[float], float]:
    where = f"entry {place} of the list"
    if not isinstance(record, dict) or not is_whole(record.get("image_id")):
        raise BadFile(path, ("A detection without a whole number as its image_id",), EXPORT, where)
    box, score = record.get("bbox"), record.get("score", 1.0)
    if not numbers(box) or len(box) != 4:
        raise BadFile(path, ("A bbox that is not four numbers",), EXPORT, f"{where}: {shown(box)}")
    if not numbers([score]):
        raise BadFile(path, ("A score that is no number",), EXPORT, f"{where}: {shown(score)}")
    return [float(each) for each in box], float(score)
