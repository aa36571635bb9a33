"""DeepLabV3+: separable atrous pyramid with a decoder on the finest level. arXiv:1802.02611."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_app.blocks._layers import SeparableConvBNReLU
from lightning_app.blocks.deeplabv3 import AtrousPyramid
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("deeplabv3plus", paper="arXiv:1802.02611", year=2018)
class DeepLabV3Plus(ContextHead):
    """Separable dilated convolutions, sharpened by the finest level.

    logits = classify(S3(S3([up(ASPP(level)), CBR1(finest)]))), S3 a depthwise separable 3x3 with BN and ReLU.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h_0, w_0) of the finest; without it, (h, w) of the
    level read.

    Args:
        dilations: one branch each; (1, 12, 24, 36) at output stride 8, (1, 6, 12, 18) at 16.
        low_level_channels: width of the finest level's branch; 0 leaves it out: logits = classify(S3(S3(ASPP(level)))).
        level: index of the backbone level that the pyramid reads.

    Reference: OpenMMLab's DepthwiseSeparableASPPHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        dilations: Sequence[int] = (1, 12, 24, 36),
        low_level_channels: int = 48,
        level: int = -1,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, low_level_channels=low_level_channels, **options)
        self.level = level
        self.pyramid = AtrousPyramid(in_channels[level], channels, dilations, separable=True)
        self.refine = nn.Sequential(
            SeparableConvBNReLU(channels + low_level_channels, channels, 3),
            SeparableConvBNReLU(channels, channels, 3),
        )

    def context(self, features: Sequence[Tensor]) -> Tensor:
        context: Tensor = self.pyramid(features[self.level])
        return context
