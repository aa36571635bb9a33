"""Efficient attention. arXiv:1812.01243."""

from collections.abc import Sequence
from typing import Any

from lightning_app.blocks.efficient_attention import EfficientSelfAttention
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("efficient_attention", paper="arXiv:1812.01243", year=2021)
class EfficientAttention(BlockHead):
    """reduce -> efficient attention -> project -> fuse -> classify.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        key_channels: width of queries and keys; channels // 4 if not given.
        value_channels: width of values; channels // 2 if not given.
        heads: number of attention heads.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        key_channels: int | None = None,
        value_channels: int | None = None,
        heads: int = 1,
        **options: Any,
    ) -> None:
        block = EfficientSelfAttention(channels, key_channels=key_channels, value_channels=value_channels, heads=heads)
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
