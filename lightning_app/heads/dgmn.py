"""Dynamic graph message passing networks. arXiv:1908.06955."""

from collections.abc import Sequence
from typing import Any, Literal

from lightning_app.blocks.dgmn import DynamicMessagePassing
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("dgmn", paper="arXiv:1908.06955", year=2020)
class DGMN(BlockHead):
    """reduce -> dynamic message passing -> project -> fuse -> classify.

    No segmentation code of the authors is public; the placement behind the last stage is ours.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        groups: groups of channels that share a filter.
        dilations: one neighbourhood of 3x3 positions each.
        deform: how neighbours are sampled and weighed, see ``DynamicMessagePassing``.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        groups: int = 4,
        dilations: Sequence[int] = (1, 4, 8, 12),
        deform: Literal["deformatt", "deform", "none"] = "deformatt",
        **options: Any,
    ) -> None:
        block = DynamicMessagePassing(channels, groups=groups, dilations=dilations, deform=deform)
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
