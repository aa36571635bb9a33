"""PointRend: a segmentation made finer only where it is unsure, after a Semantic FPN. arXiv:1912.08193."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_app.blocks.pointrend import PointRend as Points
from lightning_app.heads.base import Auxiliary, Outputs
from lightning_app.heads.semantic_fpn import SemanticFPN
from lightning_app.registry import HEADS


@HEADS.register("pointrend", paper="arXiv:1912.08193", year=2020)
class PointRend(SemanticFPN):
    """A Semantic FPN's logits c, enlarged step by step, and computed anew at the points that are least sure.

    p = the finest level of the feature pyramid; each step doubles the map and puts P(p, c) at ``points`` places of it.
    In training P answers at every position of p (where the paper draws some at random); the side output is c.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the finest level it reads in training,
    ``2**steps`` times as large in evaluation.

    Args:
        point_channels: width of each layer of P.
        layers: of P.
        steps: how often the map is doubled.
        points: places of each step.
        coarse_weight: weight of the side output's loss.

    Reference: OpenMMLab's PointHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        point_channels: int = 256,
        layers: int = 3,
        steps: int = 2,
        points: int = 8196,
        coarse_weight: float = 1.0,
        fpn_channels: int = 256,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, fpn_channels=fpn_channels, **options)
        width = fpn_channels or in_channels[self.levels[0]]
        self.steps, self.count, self.coarse_weight = steps, points, coarse_weight
        self.points = Points(
            width, num_classes, channels=point_channels, layers=layers, align_corners=self.align_corners
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.outputs(features).logits

    def outputs(self, features: Sequence[Tensor]) -> Outputs:
        levels = self.pyramid(features)
        coarse, finest = self.classify(self.summed(levels), features), levels[0]
        if self.training:
            logits = self.points(finest, coarse, _centres(finest)).unflatten(2, finest.shape[-2:])
        else:
            logits = self.points.subdivide(finest, coarse, self.steps, self.count)
        return Outputs(logits, (Auxiliary(coarse, self.coarse_weight),))


def _centres(x: Tensor) -> Tensor:
    """The middle (x, y) of every position of a map, in 0..1: (B, H * W, 2)."""
    height, width = x.shape[-2:]
    rows, columns = torch.meshgrid(
        (torch.arange(height, device=x.device) + 0.5) / height,
        (torch.arange(width, device=x.device) + 0.5) / width,
        indexing="ij",
    )
    return torch.stack([columns, rows], dim=-1).flatten(0, 1).to(x.dtype).expand(x.shape[0], -1, -1)
