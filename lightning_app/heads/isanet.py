"""Interlaced sparse self-attention network. arXiv:1907.12273."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.blocks.isanet import InterlacedSparseSelfAttention
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("isanet", paper="arXiv:1907.12273", year=2019)
class ISANet(ContextHead):
    """reduce -> interlaced sparse self-attention, fused with its input -> classify.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        key_channels: width of query and key.
        cells: (height, width) of the cells, in positions; several run side by side.
        level: index of the backbone level it reads.

    Reference: OpenMMLab's ISAHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        key_channels: int = 256,
        cells: Sequence[tuple[int, int]] = ((8, 8),),
        level: int = -1,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.level = level
        self.reduce = ConvBNReLU(in_channels[level], channels, 3)
        self.block = InterlacedSparseSelfAttention(channels, key_channels=key_channels, cells=cells)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x: Tensor = self.block(self.reduce(features[self.level]))
        return x
