"""A2-Nets: double attention networks. arXiv:1810.11579."""

from collections.abc import Sequence
from typing import Any

from lightning_app.blocks.a2net import DoubleAttention
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("a2net", paper="arXiv:1810.11579", year=2018)
class A2Net(BlockHead):
    """reduce -> double attention -> project -> fuse -> classify.

    The paper puts five blocks inside a ResNet; this head applies one behind it.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        width: channels of a gathered descriptor; channels // 4 if not given.
        descriptors: how many are gathered; ``width`` if not given.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        width: int | None = None,
        descriptors: int | None = None,
        **options: Any,
    ) -> None:
        block = DoubleAttention(channels, width=width, descriptors=descriptors)
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
