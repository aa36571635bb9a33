"""EANet: external attention. arXiv:2105.02358."""

from collections.abc import Sequence
from typing import Any

from lightning_app.blocks.external_attention import ExternalAttentionUnit
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("external_attention", paper="arXiv:2105.02358", year=2021)
class EANet(BlockHead):
    """Every position asks a memory that all images share.

    logits = classify(CBR3([level, CBR3(EA(CBR3(level)))])).

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``level``.

    Args:
        slots, heads: as in ``ExternalAttention``.

    Reference: the paper's formulas.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        slots: int = 64,
        heads: int = 1,
        **options: Any,
    ) -> None:
        block = ExternalAttentionUnit(channels, slots, heads=heads)
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
