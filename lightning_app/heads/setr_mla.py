"""SETR-MLA: several levels of a plain transformer, enlarged and put side by side. arXiv:2012.15840."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import ConvBNReLU, resize
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("setr_mla", paper="arXiv:2012.15840", year=2021)
class SETRMLA(ContextHead):
    """Levels of one size, each convolved twice and enlarged, then classified side by side.

    logits = classify([up(CBR3(CBR3(x_1))), ..., up(CBR3(CBR3(x_n)))]). The sums over levels are the backbone's neck,
    ``neck: {name: mla}``.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, scale h, scale w) of the first level it reads.

    Args:
        channels: width of each level; the classifier sees all of them.
        scale: by how much the first level is enlarged, and to what size the others are.
        levels: backbone levels it reads; all where not given.

    Reference: OpenMMLab's SETRMLAHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 128,
        scale: int = 4,
        levels: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        levels = tuple(range(len(in_channels)) if levels is None else levels)
        super().__init__(in_channels, num_classes, len(levels) * channels, **options)
        self.levels, self.scale = levels, scale
        self.branches = nn.ModuleList(
            nn.Sequential(ConvBNReLU(in_channels[level], channels, 3), ConvBNReLU(channels, channels, 3))
            for level in levels
        )

    def context(self, features: Sequence[Tensor]) -> Tensor:
        height, width = features[self.levels[0]].shape[-2:]
        size = self.scale * height, self.scale * width
        maps = [branch(features[level]) for level, branch in zip(self.levels, self.branches, strict=True)]
        return torch.cat([resize(x, size, self.align_corners) for x in maps], dim=1)
