"""LightHam: matrix decomposition of several levels, SegNeXt's head. arXiv:2109.04553, arXiv:2209.08575."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.blocks.hamburger import Hamburger
from lightning_app.heads.base import ContextHead, concat_levels
from lightning_app.registry import HEADS
from lightning_app.util.errors import InputError


@HEADS.register("lightham", paper="arXiv:2109.04553", year=2021)
class LightHam(ContextHead):
    """Levels side by side, rebuilt from a few bases that are fitted to them.

    logits = classify(CBR1(H(CBR1([levels])))), H the ``Hamburger``.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``levels[0]``.

    Args:
        block_channels: width of the decomposed map, ``channels`` where not given.
        levels: backbone levels it reads, resized to the first of them; all but the finest where not given.
        bases, slices, steps, decomposition, redraw, one_step: as in ``Hamburger``.
        norm_groups: group norm with so many groups in place of batch norm, as SegNeXt has it (32); 0 = batch norm.

    Raises:
        InputError: ``norm_groups`` does not divide the widths.

    Reference: OpenMMLab's LightHamHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        block_channels: int | None = None,
        levels: Sequence[int] | None = None,
        bases: int = 64,
        slices: int = 1,
        steps: int = 6,
        decomposition: Literal["nmf", "vq"] = "nmf",
        redraw: bool = True,
        one_step: bool = True,
        norm_groups: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        width = channels if block_channels is None else block_channels
        count = len(in_channels)
        self.levels = tuple(range(min(1, count - 1), count) if levels is None else levels)
        self.reduce = ConvBNReLU(sum(in_channels[level] for level in self.levels), width)
        self.block = Hamburger(
            width,
            bases,
            slices=slices,
            steps=steps,
            decomposition=decomposition,
            redraw=redraw,
            one_step=one_step,
        )
        self.project = ConvBNReLU(width, channels)
        if norm_groups:
            if width % norm_groups or channels % norm_groups:
                raise InputError(f"LightHam: norm_groups {norm_groups} must divide {width} and {channels}")
            for layer in (self.reduce, self.block.upper, self.project):
                layer.bn = nn.GroupNorm(norm_groups, layer.bn.num_features)  # type: ignore[assignment]

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x = concat_levels(features, self.levels, self.align_corners)
        y: Tensor = self.project(self.block(self.reduce(x)))
        return y
