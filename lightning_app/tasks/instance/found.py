"""What was found in one picture, small enough to keep: masks as runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_app.data.coco_records import CocoAnnotation, CocoImage
from lightning_app.data.instance.instances import Instances
from lightning_app.data.rle import RLE, decode, encode, to_rle


@dataclass(eq=False)
class Found:
    """Objects of one picture, annotated or found; ``found[keep]`` are some of them.

    Not frozen, since Lightning copies what is predicted field by field.

    Shape: boxes (N, 4) left, top, right, bottom in pixels; labels (N,); scores (N,), 1 in an annotation.

    Args:
        size: height and width of the picture.
        masks: one for each object; None where there are only boxes.
    """

    size: tuple[int, int]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    masks: tuple[RLE, ...] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, keep: NDArray[Any]) -> Self:
        places = np.arange(len(self))[keep]
        masks = None if self.masks is None else tuple(self.masks[place] for place in places)
        return type(self)(self.size, self.boxes[places], self.labels[places], self.scores[places], masks)

    @classmethod
    def of(cls, instances: Instances, size: tuple[int, int]) -> Self:
        """What a network tells."""
        assert instances.scores is not None
        boxes, labels, scores = (
            each.detach().to("cpu", dtype).numpy()
            for each, dtype in (
                (instances.boxes, torch.float64),
                (instances.labels, torch.int64),
                (instances.scores, torch.float64),
            )
        )
        masks = None if instances.masks is None else tuple(encode(mask) for mask in instances.masks.cpu().numpy())
        return cls(size, boxes, labels, scores, masks)

    @classmethod
    def annotated(cls, image: CocoImage, annotations: Sequence[CocoAnnotation], category_ids: Sequence[int]) -> Self:
        """What a file says of an image, without crowds."""
        objects = [each for each in annotations if not each.iscrowd]
        boxes = np.array([each.bbox for each in objects], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [each.segmentation for each in objects]
        return cls(
            (image.height, image.width),
            boxes,
            np.array([category_ids.index(each.category_id) for each in objects], dtype=np.int64),
            np.ones(len(objects)),
            None if None in masks else tuple(to_rle(mask, image.height, image.width) for mask in masks if mask),
        )

    def results(self, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """As COCO's JSON of results has it."""
        made = []
        for place, ((left, top, right, bottom), label, score) in enumerate(
            zip(self.boxes.tolist(), self.labels.tolist(), self.scores.tolist(), strict=True)
        ):
            result: dict[str, Any] = {
                "image_id": image_id,
                "category_id": category_ids[label],
                "score": score,
                "bbox": [left, top, right - left, bottom - top],
            }
            if self.masks is not None:
                result["segmentation"] = self.masks[place]
            made.append(result)
        return made

    def bitmaps(self) -> Iterator[NDArray[np.bool_]]:
        """Each mask (H, W)."""
        return map(decode, self.masks or ())
