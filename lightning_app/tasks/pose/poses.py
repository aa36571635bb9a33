"""What was found in one photograph, and how it is drawn and written."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_app.data.pose.facts import Keypoints
from lightning_app.tasks.pose.draw import skeletons
from lightning_app.tasks.report import Drawing, save_jpeg
from lightning_app.util.errors import InputError
from lightning_app.util.files import replacing


@dataclass(frozen=True, eq=False)
class Poses:
    """The keypoints of each person, or bee, in one photograph, the surest first.

    Shape: keypoints (N, K, 2) as x, y in pixels of the photograph; keypoint_scores (N, K); scores (N,); boxes (N, 4)
    as x1, y1, x2, y2, where it was looked; image (H, W, 3) uint8 RGB.

    Args:
        facts: what the keypoints are.
        image: the photograph, where it is to be drawn on.
    """

    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    facts: Keypoints
    image: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def on(self, image: NDArray[np.uint8]) -> "Poses":
        """The same with the photograph to draw on."""
        return replace(self, image=image)

    def draw(self, truth: NDArray[np.float32] | None = None) -> Image.Image:
        """Skeletons over the photograph.

        Args:
            truth: what people marked, drawn as crosses. Shape: (M, K, 3) as x, y, v.

        Raises:
            InputError: there is no photograph.
        """
        if self.image is None:
            raise InputError("These poses have no photograph to draw on: give them one with poses.on(image)")
        return skeletons(self.image, self.keypoints, self.keypoint_scores, self.facts, truth)

    overlay = draw

    def results(self, image_id: int, category_id: int = 1) -> list[dict[str, Any]]:
        """As COCO's results: x, y and score of each keypoint, in one row."""
        points = np.concatenate([self.keypoints, self.keypoint_scores[..., None]], -1, dtype=np.float64)
        return [
            {
                "image_id": image_id,
                "category_id": category_id,
                "keypoints": each.ravel().tolist(),
                "score": float(score),
                "bbox": [float(side) for side in (*box[:2], *(box[2:] - box[:2]))],
            }
            for each, score, box in zip(points, self.scores, self.boxes, strict=True)
        ]

    def save(self, path: str | Path, image_id: int = 0) -> None:
        """Write the keypoints as COCO's results, a JSON list.

        Raises:
            InputError: ``path`` does not end in .json.
        """
        path = Path(path)
        if path.suffix.lower() != ".json":
            raise InputError(f"{path}: keypoints are written as JSON. Call it {path.stem}.json")
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(self.results(image_id), indent=1) + "\n")

    def save_overlay(self, path: str | Path) -> None:
        """Write ``draw`` as a JPEG."""
        save_jpeg(self.draw(), Path(path))


@dataclass(frozen=True)
class PoseDrawing(Drawing):
    """Predicted skeletons, with what people marked beside them where it is known. Shape: truth (M, K, 3)."""

    poses: Poses | None = None
    truth: NDArray[np.float32] | None = None

    def overlay(self) -> Image.Image:
        assert self.poses is not None
        return self.poses.draw(self.truth)
