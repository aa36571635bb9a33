"""Non-local network. arXiv:1711.07971."""

from collections.abc import Sequence
from typing import Any

from lightning_app.blocks.nonlocal_net import NonLocalBlock
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("nonlocal_net", paper="arXiv:1711.07971", year=2018)
class NonLocal(BlockHead):
    """reduce -> non-local block -> project -> fuse -> classify.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        mode: how two positions are compared, see ``NonLocalBlock``.
        reduction: the block's inner width is channels // reduction.
        use_scale: divide the embedded Gaussian's logits by sqrt(inner width).
        shared: one embedding for query and key.

    Reference: OpenMMLab's NLHead.
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
        shared: bool = False,
        **options: Any,
    ) -> None:
        block = NonLocalBlock(channels, mode=mode, reduction=reduction, use_scale=use_scale, shared=shared)
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
