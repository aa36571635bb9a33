"""DMNet: dynamic multi-scale filters. ICCV 2019."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.blocks.dmnet import DCM
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("dmnet", paper="ICCV 2019", year=2019)
class DMNet(ContextHead):
    """Depthwise filters of several sizes that each image makes for itself.

    logits = classify(CBR3([x, DCM_f(x) for f in filter_sizes])).

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``level``.

    Args:
        filter_sizes: side of each module's filters.
        fusion: end each module with one more 1x1 convolution.
        level: index of the backbone level it reads.

    Reference: OpenMMLab's DMHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        filter_sizes: Sequence[int] = (1, 3, 5, 7),
        fusion: bool = False,
        level: int = -1,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.level = level
        width = in_channels[level]
        self.blocks = nn.ModuleList(DCM(width, channels, size, fusion=fusion) for size in filter_sizes)
        self.fuse = ConvBNReLU(width + len(self.blocks) * channels, channels, 3)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x = features[self.level]
        fused: Tensor = self.fuse(torch.cat([x, *(block(x) for block in self.blocks)], dim=1))
        return fused
