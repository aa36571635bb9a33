"""Point-wise spatial attention network. ECCV 2018."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.blocks.psanet import PointwiseSpatialAttention
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("psanet", paper="ECCV 2018", year=2018)
class PSANet(ContextHead):
    """logits = classify(CBR3([x, PSA(x)])).

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        level: index of the backbone level it reads.
        mode, mask_size, compact, shrink_factor, softmax, normalization_factor, padding: see
            ``PointwiseSpatialAttention``.

    Reference: github.com/hszhao/semseg; OpenMMLab's PSAHead adds ``padding=1``.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        mode: str = "bidirection",
        mask_size: tuple[int, int] = (97, 97),
        compact: bool = False,
        shrink_factor: int = 2,
        softmax: bool = True,
        normalization_factor: float | None = 1.0,
        padding: int = 0,
        level: int = -1,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.level = level
        self.block = PointwiseSpatialAttention(
            in_channels[level],
            inner=channels,
            mode=mode,
            mask_size=mask_size,
            compact=compact,
            shrink_factor=shrink_factor,
            softmax=softmax,
            normalization_factor=normalization_factor,
            padding=padding,
            align_corners=self.align_corners,
        )
        self.fuse = ConvBNReLU(2 * in_channels[level], channels, 3)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x = features[self.level]
        fused: Tensor = self.fuse(torch.cat([x, self.block(x)], dim=1))
        return fused
