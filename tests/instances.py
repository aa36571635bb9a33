"""A small set with objects: dark squares and discs on a bright ground, in COCO's JSON or as numbered masks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightning_app.data import rle

SIZE = (48, 64)  # height and width
CATEGORIES = [{"id": 7, "name": "square"}, {"id": 3, "name": "disc"}]


def scene(number: int) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """A picture, and the category and mask of each of its 0 to 3 objects."""
    dice = np.random.default_rng(number)
    picture = dice.integers(200, 255, (*SIZE, 3), dtype=np.uint8)
    objects = []
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    for place in range(number % 4):
        y, x, side = 8 + 14 * place, int(dice.integers(10, 50)), int(dice.integers(4, 7))
        square = bool(dice.integers(2))
        mask = (abs(ys - y) < side) & (abs(xs - x) < side) if square else (ys - y) ** 2 + (xs - x) ** 2 < side**2
        picture[mask] = (30, 60, 90) if square else (120, 20, 30)
        objects.append((7 if square else 3, mask))
    return picture, objects


def coco_json(numbers: list[int], *, crowd: bool = False) -> dict[str, Any]:
    """Images called 0.png, 1.png, ... with their objects; with ``crowd`` the last object is one."""
    images, annotations = [], []
    for number in numbers:
        images.append({"id": 100 + number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]})
        for category, mask in scene(number)[1]:
            runs = rle.encode(mask)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 100 + number, "category_id": category, "iscrowd": 0}
                | {"bbox": rle.box(runs), "area": int(mask.sum())}
                | {"segmentation": {"size": list(SIZE), "counts": runs["counts"].decode()}}
            )
    if crowd:
        annotations[-1]["iscrowd"] = 1
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def write_coco(root: Path, train: int = 8, val: int = 4, **options: Any) -> Path:
    """``train/`` and ``val/`` with their annotations."""
    for split, numbers in (("train", range(train)), ("val", range(train, train + val))):
        (root / split).mkdir(parents=True)
        for number in numbers:
            Image.fromarray(scene(number)[0]).save(root / split / f"{number}.png")
        (root / "annotations").mkdir(exist_ok=True)
        content = json.dumps(coco_json(list(numbers), **options))
        (root / "annotations" / f"instances_{split}.json").write_text(content)
    return root


def write_masks(root: Path, count: int = 8, *, classes: bool = False) -> Path:
    """``images/`` and ``masks/`` whose numbers count objects, or with ``classes`` objects of each class."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        picture, objects = scene(number)
        numbers = np.zeros(SIZE, dtype=np.uint16)
        for place, (category, mask) in enumerate(objects, 1):
            numbers[mask] = place + (1000 * (1 if category == 7 else 2) if classes else 0)
        Image.fromarray(picture).save(root / "images" / f"{number}.png")
        Image.fromarray(numbers).save(root / "masks" / f"{number}.png")
    return root
