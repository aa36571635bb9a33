"""Fully convolutional head: the baseline, and the auxiliary head of most others. arXiv:1411.4038."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.heads.base import ContextHead, concat_levels
from lightning_app.registry import HEADS
from lightning_app.util.errors import InputError


@HEADS.register("fcn", paper="arXiv:1411.4038", year=2015)
class FCN(ContextHead):
    """A stack of convolutions and no context: what every other head is measured against.

    y = CBR(...CBR(x)), logits = classify(CBR([x, y])), x the levels resized to the first of them and concatenated.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``levels[0]``.

    Args:
        num_convs: convolutions in the stack; 0 classifies the levels as they are.
        concat_input: fuse the stack's result with its input.
        levels: backbone levels it reads; all four for HRNet, with ``kernel_size=1``.

    Raises:
        InputError: ``num_convs=0`` where ``channels`` is not the width of the levels.

    Reference: OpenMMLab's FCNHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        num_convs: int = 2,
        kernel_size: int = 3,
        dilation: int = 1,
        concat_input: bool = True,
        levels: Sequence[int] = (-1,),
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.levels = tuple(levels)
        width = sum(in_channels[level] for level in self.levels)
        if num_convs == 0 and width != channels:
            raise InputError(f"FCN with num_convs=0 classifies {width} channels as they are: set channels to {width}")
        widths = [width] + [channels] * num_convs
        self.convs = nn.Sequential(*(ConvBNReLU(i, o, kernel_size, dilation=dilation) for i, o in pairwise(widths)))
        self.fuse = ConvBNReLU(width + channels, channels, kernel_size) if concat_input else None

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x = concat_levels(features, self.levels, self.align_corners)
        y: Tensor = self.convs(x)
        return y if self.fuse is None else self.fuse(torch.cat([x, y], dim=1))
