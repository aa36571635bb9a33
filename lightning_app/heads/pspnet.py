"""PSPNet: pyramid pooling. arXiv:1612.01105."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_app.blocks.pspnet import PyramidPooling
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("pspnet", paper="arXiv:1612.01105", year=2017)
class PSPNet(ContextHead):
    """Means over a pyramid of cells beside the map: logits = classify(PPM(level)).

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``level``.

    Args:
        scales: cells per side of each pooling.
        level: index of the backbone level it reads.

    Reference: OpenMMLab's PSPHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        scales: Sequence[int] = (1, 2, 3, 6),
        level: int = -1,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.level = level
        self.pyramid = PyramidPooling(in_channels[level], channels, scales, align_corners=self.align_corners)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        context: Tensor = self.pyramid(features[self.level])
        return context
