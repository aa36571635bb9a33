"""What is exported of a pose estimator."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import torch
from torch import Tensor

from lightning_app.export.graphs import Graph, Size
from lightning_app.util.errors import InputError

NUDGE: Final = 1e-5
NUDGES: Final = 8  # a flat map may stand one of them


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
        points, scores = self.network.codec.decode(self._maps(images))
        return points, scores

    def taken(self, size: Size | None) -> Size:
        wanted: Size = self.network.codec.input_size
        if size is not None and size != wanted:
            given, known = ("x".join(map(str, each)) for each in (size, wanted))
            raise InputError(f"--size {given}: keypoints are of crops of {known}; leave it out, or give --output maps")
        return wanted

    def difference(self, images: Tensor, given: Sequence[Tensor]) -> float:
        """The largest of the points over the longer side, and of the scores over the largest.

        Where nothing stands out of a map its point hangs on the last digits. So points that move by themselves when the
        maps are changed by 1e-5 of their largest value are not compared.
        """
        maps, decode = self._maps(images), self.network.codec.decode
        points, scores = decode(maps)
        if any(one.shape != other.shape for one, other in zip((points, scores), given, strict=True)):
            return math.inf
        side, (found, sure) = max(images.shape[-2:]), given
        generator = torch.Generator().manual_seed(0)
        nudges = torch.rand(NUDGES, *maps.shape, generator=generator).to(maps) - 0.5
        moved = torch.stack([decode(maps + 2 * NUDGE * maps.abs().max() * nudge)[0] for nudge in nudges])
        steady = ((moved - points).abs() <= self.tolerance * side).all(-1).all(0)
        off = torch.where(steady[..., None], (found - points).abs(), 0).max() / side
        return float(max(off, (sure - scores).abs().max() / scores.abs().max()))

    def _maps(self, images: Tensor) -> Tensor:
        info = self.network.info
        mirrored = info.keypoints.flip_indices if info is not None and info.flip_test else None
        maps: Tensor = self.network.maps(images.to(self.dtype), mirrored).float()
        return maps
