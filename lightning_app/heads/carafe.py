"""CARAFE: content-aware reassembly of features, as the upsampler of a feature pyramid. arXiv:1905.02188."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import ConvBNReLU, resize
from lightning_app.blocks.carafe import CARAFEUpsample
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("carafe", paper="arXiv:1905.02188", year=2019)
class CARAFE(ContextHead):
    """Feature pyramid whose top-down steps are CARAFE upsamplings.

    p_n = lateral(level n), p_i = lateral(level i) + CARAFE(p_{i+1}); logits = classify(fuse([smooth(p_i) at level 0])).

    An upsampled map whose size differs from its neighbour's is resized to it: one pixel where a side is odd, and the
    mean over each pixel's four reassembled subpixels behind a dilated backbone, whose levels have the same size.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h_0, w_0).

    Args:
        channels: width of the pyramid.
        kernel: side of the reassembly window.
        compressed: channels that the reassembly kernels are predicted from.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        kernel: int = 5,
        compressed: int = 64,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.lateral = nn.ModuleList(ConvBNReLU(width, channels) for width in in_channels)
        self.upsample = nn.ModuleList(
            CARAFEUpsample(channels, kernel=kernel, compressed=compressed) for _ in in_channels[1:]
        )
        self.smooth = nn.ModuleList(ConvBNReLU(channels, channels, 3) for _ in in_channels)
        self.fuse = ConvBNReLU(channels * len(in_channels), channels, 3)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        pyramid = [lateral(level) for lateral, level in zip(self.lateral, features, strict=True)]
        for i in reversed(range(len(self.upsample))):
            finer = pyramid[i]
            pyramid[i] = finer + resize(self.upsample[i](pyramid[i + 1]), finer.shape[2:], self.align_corners)
        size = pyramid[0].shape[2:]
        levels = [resize(smooth(p), size, self.align_corners) for smooth, p in zip(self.smooth, pyramid, strict=True)]
        fused: Tensor = self.fuse(torch.cat(levels, dim=1))
        return fused
