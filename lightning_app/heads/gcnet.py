"""GCNet: global context. arXiv:1904.11492."""

from collections.abc import Sequence
from typing import Any, Literal

from lightning_app.blocks.gcnet import GlobalContext
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("gcnet", paper="arXiv:1904.11492", year=2019)
class GCNet(BlockHead):
    """One attention-pooled vector of the whole map, given to every position.

    logits = classify(CBR3([level, CBR3(GC(CBR3(level)))])).

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``level``.

    Args:
        ratio, pooling, fusion: as in ``GlobalContext``.

    Reference: github.com/xvjiarui/GCNet; OpenMMLab's GCHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        ratio: float = 1 / 4,
        pooling: Literal["att", "avg"] = "att",
        fusion: Sequence[Literal["add", "mul"]] = ("add",),
        **options: Any,
    ) -> None:
        block = GlobalContext(channels, ratio, pooling=pooling, fusion=fusion)
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
