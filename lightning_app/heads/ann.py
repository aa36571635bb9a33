"""Asymmetric non-local network. arXiv:1908.07678."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.blocks.ann import AFNB, APNB
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("ann", paper="arXiv:1908.07678", year=2019)
class ANN(ContextHead):
    """Two levels fused by asymmetric attention, then one map asking its own pyramid.

    logits = classify(APNB(CBR3(dropout(AFNB(low, high))))).

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the high level.

    Args:
        key_channels: width of query, key and value.
        scales: cells per side of the poolings that make the pyramid.
        pool: "avg" or "max".
        stages: attentions whose results are summed, in each block.
        ways: an attention for each scale, side by side, in place of one over all.
        levels: indices of the low and the high level.

    Reference: OpenMMLab's ANNHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        key_channels: int = 256,
        scales: Sequence[int] = (1, 3, 6, 8),
        pool: str = "avg",
        stages: int = 1,
        ways: bool = False,
        levels: tuple[int, int] = (-2, -1),
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.low, self.high = levels
        high_channels = in_channels[self.high]
        self.fusion = AFNB(
            in_channels[self.low],
            high_channels,
            key_channels=key_channels,
            value_channels=key_channels,
            stages=stages,
            scales=scales,
            pool=pool,
            ways=ways,
        )
        self.reduce = ConvBNReLU(high_channels, channels, 3)
        self.block = APNB(
            channels,
            key_channels=key_channels,
            value_channels=key_channels,
            stages=stages,
            scales=scales,
            pool=pool,
            ways=ways,
        )

    def context(self, features: Sequence[Tensor]) -> Tensor:
        fused = self.fusion(features[self.low], features[self.high])
        x: Tensor = self.block(self.reduce(self.dropout(fused)))
        return x
