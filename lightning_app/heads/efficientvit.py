"""EfficientViT's linear attention as a head. arXiv:2205.14756."""

from collections.abc import Sequence
from typing import Any

from lightning_app.blocks.efficientvit import EfficientViTBlock
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("efficientvit", paper="arXiv:2205.14756", year=2022)
class EfficientViT(BlockHead):
    """Attention whose cost grows with the number of positions and not with its square.

    logits = classify(CBR3([level, CBR3(E(CBR3(level)))])), E the ``EfficientViTBlock``.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``level``.

    Args:
        dim, scales, expansion: as in ``EfficientViTBlock``.

    Reference: github.com/mit-han-lab/efficientvit.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        dim: int = 8,
        scales: Sequence[int] = (5,),
        expansion: int = 4,
        **options: Any,
    ) -> None:
        block = EfficientViTBlock(channels, dim, scales=scales, expansion=expansion)
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
