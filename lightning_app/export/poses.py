"""What is exported of a pose estimator."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from lightning_app.export.graphs import Graph, Size
from lightning_app.util.errors import InputError


class Maps(Graph):
    """Maps of keypoints, (B, M, h, w)."""

    outputs: tuple[str, ...] = ("maps",)

    def facts(self) -> dict[str, Any]:
        codec = self.network.codec
        return {**super().facts(), "codec": {**asdict(codec), "heatmap_size": codec.maps}}


class Keypoints(Maps):
    """Keypoints in pixels of the crop, (B, K, 2) as x, y, and their scores, (B, K), as ``predict`` finds them.

    Where the weights look at crops in a mirror too, so does the file. Crops are of the codec's size.
    """

    outputs = ("keypoints", "scores")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        info = self.network.info
        mirrored = info.keypoints.flip_indices if info is not None and info.flip_test else None
        points, scores = self.network.codec.decode(self.network.maps(images.to(self.dtype), mirrored).float())
        return points, scores

    def taken(self, size: Size | None) -> Size:
        wanted: Size = self.network.codec.input_size
        if size is not None and size != wanted:
            given, known = ("x".join(map(str, each)) for each in (size, wanted))
            raise InputError(f"--size {given}: keypoints are of crops of {known}; leave it out, or give --output maps")
        return wanted

    def difference(self, images: Tensor, given: Sequence[Tensor]) -> float:
        """The largest of the points over the longer side, and of the scores over the largest."""
        wanted = self(images)
        if any(one.shape != other.shape for one, other in zip(wanted, given, strict=True)):
            return math.inf
        points, scores = ((one - other).abs().max() for one, other in zip(wanted, given, strict=True))
        return float(max(points / max(images.shape[-2:]), scores / wanted[1].abs().max()))
