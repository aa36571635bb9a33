"""Polarized self-attention. arXiv:2107.00782."""

from collections.abc import Sequence
from typing import Any, Literal

from lightning_app.blocks.polarized import PolarizedSelfAttention
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("polarized", paper="arXiv:2107.00782", year=2022)
class Polarized(BlockHead):
    """reduce -> polarized self-attention -> project -> fuse -> classify.

    The paper puts the block inside every residual unit of the backbone; this head applies it once behind it.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        mode: "parallel" or "sequential" gates.
        form: the released code's formula or the paper's, see ``PolarizedSelfAttention``.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        mode: Literal["parallel", "sequential"] = "parallel",
        form: Literal["official", "paper"] = "official",
        **options: Any,
    ) -> None:
        block = PolarizedSelfAttention(channels, mode=mode, form=form)
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
