"""LR-ASPP: the light head of MobileNetV3. arXiv:1905.02244."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, resize
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("lraspp", paper="arXiv:1905.02244", year=2019)
class LRASPP(ContextHead):
    """Large means gate the coarsest level, which finer levels then sharpen.

    y = conv1(CBR1(x) * up(sigmoid(conv1(pool(x))))), then for each finer level y = CBR1([up(y), conv1(x_i)]);
    logits = classify(y). The pool is a mean over 49x49 positions, moved by (16, 20), less on smaller maps.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``levels[0]``.

    Args:
        branch_channels: width of each finer level's branch, finest first.
        levels: the levels it reads, finest first: one for each branch and the coarse one.
        norm_eps: eps of the batch norms; published weights have MobileNetV3's, 1e-3.

    Reference: OpenMMLab's LRASPPHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 128,
        branch_channels: Sequence[int] = (32, 64),
        levels: Sequence[int] = (0, 1, -1),
        norm_eps: float = 1e-5,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.levels = tuple(levels)
        *finer, top = self.levels
        self.reduce = ConvBNReLU(in_channels[top], channels)
        self.gate = Conv1x1(in_channels[top], channels, bias=False)
        self.project = Conv1x1(channels, channels)
        self.branches = nn.ModuleList(
            Conv1x1(in_channels[level], width, bias=False) for level, width in zip(finer, branch_channels, strict=True)
        )
        self.fuse = nn.ModuleList(ConvBNReLU(channels + width, channels) for width in branch_channels)
        for layer in (self.reduce, *self.fuse):
            layer.bn.eps = norm_eps

    def context(self, features: Sequence[Tensor]) -> Tensor:
        *finer, top = (features[level] for level in self.levels)
        height, width = top.shape[-2:]
        gate = self.gate(F.avg_pool2d(top, (min(49, height), min(49, width)), (16, 20))).sigmoid()
        x: Tensor = self.project(self.reduce(top) * resize(gate, (height, width), self.align_corners))
        for level, branch, fuse in reversed(list(zip(finer, self.branches, self.fuse, strict=True))):
            x = fuse(torch.cat([resize(x, level.shape[-2:], self.align_corners), branch(level)], dim=1))
        return x
