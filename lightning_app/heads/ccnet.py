"""Criss-cross network. arXiv:1811.11721."""

from collections.abc import Sequence
from typing import Any

from lightning_app.blocks.ccnet import CrissCrossAttention
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("ccnet", paper="arXiv:1811.11721", year=2019)
class CCNet(BlockHead):
    """reduce -> recurrent criss-cross attention -> project -> fuse -> classify.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        recurrence: criss-cross passes; two let every position hear from every other.

    Reference: OpenMMLab's CCHead; the authors' head differs by leaky ReLUs (slope 0.01).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        recurrence: int = 2,
        **options: Any,
    ) -> None:
        block = CrissCrossAttention(channels, recurrence=recurrence)
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
