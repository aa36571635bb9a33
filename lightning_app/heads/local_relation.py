"""Local relation networks. arXiv:1904.11491."""

from collections.abc import Sequence
from typing import Any

from lightning_app.blocks.local_relation import LocalRelationLayer, Similarity
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("local_relation", paper="arXiv:1904.11491", year=2019)
class LocalRelation(BlockHead):
    """reduce -> local relation layer -> project -> fuse -> classify.

    The paper replaces every 3x3 convolution of a ResNet; this head applies one layer behind it.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        kernel: side of the window.
        group_channels: how many channels share their weights.
        similarity: how two positions are compared, see ``LocalRelationLayer``.
        dilation: step between two taps of the window.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        kernel: int = 7,
        group_channels: int = 8,
        similarity: Similarity = "product",
        dilation: int = 1,
        **options: Any,
    ) -> None:
        block = LocalRelationLayer(
            channels, kernel=kernel, group_channels=group_channels, similarity=similarity, dilation=dilation
        )
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
