"""Generalized attention. arXiv:1904.05873."""

from collections.abc import Sequence
from typing import Any

from lightning_app.blocks.generalized_attention import TERMS, GeneralizedAttentionBlock, Term
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("generalized_attention", paper="arXiv:1904.05873", year=2019)
class GeneralizedAttention(BlockHead):
    """reduce -> generalized attention -> project -> fuse -> classify.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        heads: of attention, each of channels // heads.
        kv_stride: every so many-th row and column is attended to.
        terms: of the attention's weights: query_key, query_position, key, position.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        heads: int = 8,
        kv_stride: int = 2,
        terms: Sequence[Term] = TERMS,
        **options: Any,
    ) -> None:
        block = GeneralizedAttentionBlock(channels, heads=heads, kv_stride=kv_stride, terms=terms)
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
