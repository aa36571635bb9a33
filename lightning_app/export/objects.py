"""What is exported of a detector."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_app.export.graphs import AXES, SHAPES, Graph, Mismatch, Size

GREYS = 255  # levels of a photograph


class Objects(Graph):
    """The objects on one photograph, best first, in its own pixels: boxes, labels, scores and unpasted masks.

    Shape: an RGB image (1, 3, H, W) in 0..1 -> boxes (N, 4) left, top, right, bottom, labels (N,) from 0, scores (N,)
    in 0..1 and, of Mask R-CNN, masks (N, 28, 28) in 0..1 that cover the boxes.
    """

    axes: Mapping[int, str] = {axis: name for axis, name in AXES.items() if axis}
    tolerance = 1e-3  # masks are read where boxes are, to the last digit of both

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.outputs = ("boxes", "labels", "scores", *(("masks",) if network.masks else ()))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        (found,), masks = self.network.boxed(images)
        results = (found.boxes, found.labels, found.scores)
        return results if masks is None else (*results, masks)

    def facts(self) -> dict[str, Any]:
        masks = "; masks (objects, rows, columns) in 0..1, cells that cover the box" if self.network.masks else ""
        return {
            "input": "an RGB image (1, 3, height, width), float32 in 0..1; resized and normalised inside",
            "output": "boxes (objects, 4) left, top, right, bottom in pixels of the image; labels (objects,), numbers "
            f"of classes from 0; scores (objects,) in 0..1, best first{masks}",
            **{name: list(values) for name, values in self.network.constants.items()},
        }

    def shapes(self, size: Size | None) -> Sequence[tuple[int, Size]]:
        return [(1, each) for each in ([size] if size else [each for _, each in SHAPES])]

    def photographs(self, batch: int, size: Size, generator: torch.Generator) -> Tensor:
        """Of whole grey levels, which resizing rounds to."""
        return (super().photographs(batch, size, generator) * GREYS).round() / GREYS

    def counted(self, given: Sequence[Tensor]) -> str:
        return f"{len(given[0])} objects"

    def difference(self, images: Tensor, given: Sequence[Tensor]) -> float:
        """The largest of all objects: of boxes as a share of the longer side, of scores and of masks.

        Of objects that are alike to the last digits the order is not compared.

        Raises:
            Mismatch: not as many objects, or others.
        """
        (boxes, labels, scores, *masks), (found, classes, sure, *filled) = self(images), given
        if len(boxes) != len(found):
            raise Mismatch(f"it finds {len(found)} objects, the network {len(boxes)}")
        if not len(boxes):
            return 0.0
        apart = (boxes[:, None] - found).abs().amax(2) / max(images.shape[-2:])
        apart = torch.maximum(apart, (scores[:, None] - sure).abs()) + (labels[:, None] != classes)
        off, place = apart.min(dim=1)
        if len(place.unique()) < len(place):
            raise Mismatch(f"it finds other objects than the network's {len(boxes)}")
        unlike = [(one - other[place]).abs().amax() for one, other in zip(masks, filled, strict=True)]
        return float(max([off.max(), *unlike]))
