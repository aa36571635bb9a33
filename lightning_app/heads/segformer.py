"""SegFormer's all-MLP head. arXiv:2105.15203."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_app.blocks._layers import ConvBNReLU, fuse_upsampled
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("segformer", paper="arXiv:2105.15203", year=2021)
class SegFormer(ContextHead):
    """Every level at one width and one size, side by side, and a linear layer: the context is the backbone's.

    y_i = CBR1(x_i); logits = classify(CBR1([y_1, up(y_2), ..., up(y_n)])). The fusing layer acts on each level before
    it is enlarged.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the finest level it reads.

    Args:
        levels: backbone levels it reads, finest first; all where not given.

    Reference: OpenMMLab's SegformerHead, which puts the finest level first where the paper's code puts it last.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        levels: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.levels = tuple(range(len(in_channels)) if levels is None else levels)
        self.laterals = nn.ModuleList(ConvBNReLU(in_channels[level], channels) for level in self.levels)
        self.fuse = ConvBNReLU(len(self.levels) * channels, channels)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        laterals = zip(self.levels, self.laterals, strict=True)
        finest, *coarser = (lateral(features[level]) for level, lateral in laterals)
        return fuse_upsampled(self.fuse, finest, coarser, self.align_corners) if coarser else self.fuse(finest)
