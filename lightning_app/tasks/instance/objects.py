"""What was found in one picture, and how it is written and drawn."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_app.tasks.instance.draw import overlay
from lightning_app.tasks.instance.found import Found
from lightning_app.tasks.report import save_jpeg
from lightning_app.util.errors import InputError
from lightning_app.util.files import replacing

SHOWN = 0.5  # the score from which on an object is drawn


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one picture, best first; ``objects.above(0.5)`` are those of that score or more.

    Shape: image (H, W, 3) uint8 RGB, upright; boxes (N, 4) left, top, right, bottom in its pixels; labels and scores
    (N,); masks (N, H, W) bool, None where the weights find boxes alone.

    Args:
        classes: names in the order of the labels.
    """

    image: NDArray[np.uint8]
    found: Found
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.found)

    @property
    def boxes(self) -> NDArray[np.float64]:
        return self.found.boxes

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.found.labels

    @property
    def scores(self) -> NDArray[np.float64]:
        return self.found.scores

    @cached_property
    def masks(self) -> NDArray[np.bool_] | None:
        if self.found.masks is None:
            return None
        return np.array(list(self.found.bitmaps()), dtype=bool).reshape(len(self), *self.found.size)

    @property
    def names(self) -> list[str]:
        """The class of each object."""
        return [self.classes[label] for label in self.labels]

    @property
    def counts(self) -> Mapping[str, int]:
        """How many objects there are of each class, the most first."""
        return dict(Counter(self.names).most_common())

    def above(self, score: float) -> "Objects":
        """The objects with at least that score."""
        return Objects(self.image, self.found[self.scores >= score], self.classes)

    def overlay(self, score: float = SHOWN) -> Image.Image:
        """The picture for people: outlines, names and scores over the photograph, and below how many there are."""
        return overlay(self.image, self.above(score).found, self.classes)

    def save(self, path: str | Path) -> None:
        """Write each object as JSON: its class, score, box [left, top, width, height], and mask as COCO's runs.

        Raises:
            InputError: ``path`` does not end in .json.
        """
        path = Path(path)
        if path.suffix.lower() != ".json":
            raise InputError(f"{path}: objects are written as JSON. Call it {path.stem}.json")
        results = self.found.results(0, range(len(self.classes)))
        objects = []
        for name, result in zip(self.names, results, strict=True):
            kept = {"class": name, "score": round(result["score"], 5), "bbox": [round(x, 2) for x in result["bbox"]]}
            if mask := result.get("segmentation"):
                kept["segmentation"] = {"size": mask["size"], "counts": mask["counts"].decode()}
            objects.append(kept)
        height, width = self.found.size
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"height": height, "width": width, "objects": objects}))

    def save_overlay(self, path: str | Path, score: float = SHOWN) -> None:
        """Write ``overlay`` as a JPEG."""
        save_jpeg(self.overlay(score), Path(path))
