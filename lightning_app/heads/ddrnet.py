"""DDRNet's head, with the side output that it trains with. arXiv:2101.06085."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1
from lightning_app.blocks.dappm import NormReLUConv
from lightning_app.heads.base import Auxiliary, ContextHead, Outputs
from lightning_app.registry import HEADS


class PreActivated(nn.Module):
    """ReLU(BN(conv3(ReLU(BN(x))))). Shape: (B, in_channels, H, W) -> (B, channels, H, W)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = NormReLUConv(in_channels, channels, 3)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x)).relu()
        return y


@HEADS.register("ddrnet", paper="arXiv:2101.06085", year=2021)
class DDRNet(ContextHead):
    """Norm, ReLU and a convolution, on the level that predicts and on one in front of it, whose loss helps.

    logits = classify(ReLU(BN(conv3(ReLU(BN(x)))))). The side output is the same of ``side_level``.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``level``.

    Args:
        level: index of the backbone level it reads.
        side_level: index of the level of the side output.
        side_weight: weight of its loss.

    Reference: OpenMMLab's DDRHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 128,
        level: int = -1,
        side_level: int = -2,
        side_weight: float = 0.4,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.level, self.side_level, self.side_weight = level, side_level, side_weight
        self.convolve = PreActivated(in_channels[level], channels)
        self.side = PreActivated(in_channels[side_level], channels)
        self.side_classifier = Conv1x1(channels, num_classes)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x: Tensor = self.convolve(features[self.level])
        return x

    def outputs(self, features: Sequence[Tensor]) -> Outputs:
        side = self.side_classifier(self.dropout(self.side(features[self.side_level])))
        return Outputs(self(features), (Auxiliary(side, self.side_weight),))
