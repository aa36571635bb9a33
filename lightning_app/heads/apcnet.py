"""APCNet: adaptive pyramid context. CVPR 2019."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.blocks.apcnet import ACM
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("apcnet", paper="CVPR 2019", year=2019)
class APCNet(ContextHead):
    """A pyramid of cells, weighted anew at every position.

    logits = classify(CBR3([x, ACM_s(x) for s in scales])).

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``level``.

    Args:
        scales: cells per side of each module.
        fusion: end each module with one more 1x1 convolution.
        level: index of the backbone level it reads.

    Reference: github.com/Junjun2016/APCNet; OpenMMLab's APCHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        scales: Sequence[int] = (1, 2, 3, 6),
        fusion: bool = True,
        level: int = -1,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.level = level
        width = in_channels[level]
        self.blocks = nn.ModuleList(ACM(width, channels, scale, fusion=fusion) for scale in scales)
        self.fuse = ConvBNReLU(width + len(self.blocks) * channels, channels, 3)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x = features[self.level]
        fused: Tensor = self.fuse(torch.cat([x, *(block(x) for block in self.blocks)], dim=1))
        return fused
