"""Disentangled non-local network. arXiv:2006.06668."""

from collections.abc import Sequence
from typing import Any

from lightning_app.blocks.dnlnet import DisentangledNonLocalBlock
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("dnlnet", paper="arXiv:2006.06668", year=2020)
class DNL(BlockHead):
    """reduce -> disentangled non-local block -> project -> fuse -> classify.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        mode: how two positions are compared, see ``NonLocalBlock``.
        reduction: the block's inner width is channels // reduction.
        use_scale: divide the embedded Gaussian's logits by sqrt(inner width).
        temperature: of the embedded Gaussian.

    Reference: OpenMMLab's DNLHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        mode: str = "embedded_gaussian",
        reduction: int = 2,
        use_scale: bool = True,
        temperature: float = 0.05,
        **options: Any,
    ) -> None:
        block = DisentangledNonLocalBlock(
            channels, mode=mode, reduction=reduction, use_scale=use_scale, temperature=temperature
        )
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
