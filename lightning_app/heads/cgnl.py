"""Compact generalized non-local network. arXiv:1810.13125."""

from collections.abc import Sequence
from typing import Any, Literal

from lightning_app.blocks.cgnl import CompactNonLocal
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("cgnl", paper="arXiv:1810.13125", year=2018)
class CGNL(BlockHead):
    """reduce -> compact non-local block -> project -> fuse -> classify.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        width: inner width; channels // 2 if not given.
        groups: groups of channels.
        kernel: "dot" or "rbf", the Taylor terms of a Gaussian.
        order: highest Taylor term of "rbf".
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        width: int | None = None,
        groups: int = 8,
        kernel: Literal["dot", "rbf"] = "dot",
        order: int = 3,
        **options: Any,
    ) -> None:
        block = CompactNonLocal(channels, width=width, groups=groups, kernel=kernel, order=order)
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
