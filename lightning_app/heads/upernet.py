"""UPerNet: pyramid pooling on top of a feature pyramid. arXiv:1807.10221."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_app.blocks._layers import ConvBNReLU, fuse_upsampled, resize
from lightning_app.blocks.pspnet import PyramidPooling
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("upernet", paper="arXiv:1807.10221", year=2018)
class UPerNet(ContextHead):
    """Pyramid pooling on the coarsest level, handed down a feature pyramid.

    p_n = PPM(x_n), t_i = CBR1(x_i) + up(t_i+1), p_i = CBR3(t_i); logits = classify(CBR3([p_1, up(p_2), ..., up(p_n)])).
    The fusing convolution acts on each level before it is enlarged.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the finest level it reads.

    Args:
        scales: cells per side of each pooling.
        levels: backbone levels it reads, finest first; all where not given.

    Reference: OpenMMLab's UPerHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        scales: Sequence[int] = (1, 2, 3, 6),
        levels: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.levels = tuple(range(len(in_channels)) if levels is None else levels)
        *finer, top = self.levels
        self.pyramid = PyramidPooling(in_channels[top], channels, scales, align_corners=self.align_corners)
        self.laterals = nn.ModuleList(ConvBNReLU(in_channels[level], channels) for level in finer)
        self.outs = nn.ModuleList(ConvBNReLU(channels, channels, 3) for _ in finer)
        self.fuse = ConvBNReLU(len(self.levels) * channels, channels, 3)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        *finer, top = self.levels
        x: Tensor = self.pyramid(features[top])
        levels = [x]
        for level, lateral, out in reversed(list(zip(finer, self.laterals, self.outs, strict=True))):
            y = lateral(features[level])
            x = y + resize(x, y.shape[-2:], self.align_corners)
            levels.insert(0, out(x))
        finest, *coarser = levels
        return fuse_upsampled(self.fuse, finest, coarser, self.align_corners) if coarser else self.fuse(finest)
