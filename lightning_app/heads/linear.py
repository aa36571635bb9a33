"""A linear classifier of one or several levels, as DINOv2 is measured. arXiv:2304.07193."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_app.heads.base import ContextHead, concat_levels
from lightning_app.registry import HEADS


@HEADS.register("linear", paper="arXiv:2304.07193", year=2023)
class Linear(ContextHead):
    """A batch norm and a linear layer: what a backbone's features hold as they are.

    logits = classify(BN([levels])), the levels resized to the first of them. The multi-scale form of DINOv2 reads the
    last four blocks: ``levels: [0, 1, 2, 3]``.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``levels[0]``.

    Args:
        levels: backbone levels it reads.

    Reference: github.com/facebookresearch/dinov2, BNHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        levels: Sequence[int] = (-1,),
        **options: Any,
    ) -> None:
        width = sum(in_channels[level] for level in levels)
        super().__init__(in_channels, num_classes, width, **options)
        self.levels = tuple(levels)
        self.norm = nn.BatchNorm2d(width)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x: Tensor = self.norm(concat_levels(features, self.levels, self.align_corners))
        return x
