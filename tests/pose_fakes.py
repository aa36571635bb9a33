"""Small sets of keypoints in COCO's JSON: blobs of known colours at known places."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = ["nose", "left_ear", "right_ear", "tail"]
SIZE = (48, 64)  # height, width
OFFSETS = np.array([[10.0, 0], [6, -6], [6, 6], [-10, 0]])  # of the points from the middle


def animal(rng: np.random.Generator) -> tuple[np.ndarray, list[float], list[float]]:
    """A picture with one animal whose points have colours of their own, its keypoints, and its box."""
    pixels = np.full((*SIZE, 3), 40, dtype=np.uint8)
    middle = np.array([rng.integers(18, 46), rng.integers(16, 32)], dtype=float)
    points = middle + OFFSETS
    colours = [(250, 60, 60), (60, 250, 60), (60, 60, 250), (250, 250, 60)]
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    for (x, y), colour in zip(points, colours, strict=True):
        pixels[(xs - x) ** 2 + (ys - y) ** 2 <= 9] = colour
    left, top = points.min(0) - 3
    width, height = np.ptp(points, axis=0) + 6
    flat = [float(value) for point in points for value in (*point, 2)]
    return pixels, flat, [float(left), float(top), float(width), float(height)]


def fake_keypoints(root: Path, *, train: int = 6, val: int = 4, info: dict[str, Any] | None = None) -> Path:
    """A root with ``annotations/`` and ``images/``, one animal in each picture."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    number = 0
    for split, count in (("train", train), ("val", val)):
        images, annotations = [], []
        for _ in range(count):
            number += 1
            pixels, points, box = animal(rng)
            name = f"{split}_{number}.png"
            Image.fromarray(pixels).save(root / "images" / name)
            images.append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
            annotations.append(
                {"id": number, "image_id": number, "category_id": 3, "iscrowd": 0, "bbox": box, "keypoints": points}
                | {"area": 0.53 * box[2] * box[3], "num_keypoints": len(NAMES)}
            )
        content = {
            "info": {"flip_pairs": [[1, 2]], "sigmas": [0.05, 0.05, 0.05, 0.1]} if info is None else info,
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 3, "name": "animal", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3], [1, 4]]}],
        }
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return root


def changed(root: Path, split: str, change: Any) -> None:
    """Let ``change`` edit the content of a split's file."""
    path = root / "annotations" / f"{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
