"""LR-ASPP: the light head of MobileNetV3. arXiv:1905.02244."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, resize
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS
from lightning_app.util.errors import check_choice


@HEADS.register("lraspp", paper="arXiv:1905.02244", year=2019)
class LRASPP(ContextHead):
    """Large means gate the coarsest level, which finer levels then sharpen.

    y = CBR1(x) * up(sigmoid(conv1(pool(x)))). Fused by "concat", y = conv1(y), then for each finer level
    y = CBR1([up(y), conv1(x_i)]), and logits = classify(y); by "sum", as in the paper's figure,
    logits = classify(up(y)) + sum_i conv1(x_i). The pool is a mean over 49x49 positions, moved by (16, 20), less on
    smaller maps.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``levels[0]``.

    Args:
        branch_channels: width of each finer level's branch, finest first; "sum" has none.
        levels: the levels it reads, finest first, and the coarse one.
        fusion: how finer levels come in; torchvision's weights have "sum", with one of them.
        pool: positions along a side of what the gate is the mean of; 0 is the whole map, as in torchvision's weights.
        norm_eps: eps of the batch norms; published weights have MobileNetV3's, 1e-3.

    Raises:
        InputError: an unknown fusion.

    Reference: OpenMMLab's LRASPPHead; torchvision's LRASPPHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 128,
        branch_channels: Sequence[int] = (32, 64),
        levels: Sequence[int] = (0, 1, -1),
        fusion: Literal["concat", "sum"] = "concat",
        pool: int = 49,
        norm_eps: float = 1e-5,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        check_choice("fusion", fusion, ("concat", "sum"))
        self.levels, self.fusion, self.pool = tuple(levels), fusion, pool
        *finer, top = self.levels
        self.reduce = ConvBNReLU(in_channels[top], channels)
        self.gate = Conv1x1(in_channels[top], channels, bias=False)
        if fusion == "sum":
            self.branches = nn.ModuleList(Conv1x1(in_channels[level], num_classes) for level in finer)
            self.fuse = nn.ModuleList()
        else:
            self.project = Conv1x1(channels, channels)
            self.branches = nn.ModuleList(
                Conv1x1(in_channels[level], width, bias=False)
                for level, width in zip(finer, branch_channels, strict=True)
            )
            self.fuse = nn.ModuleList(ConvBNReLU(channels + width, channels) for width in branch_channels)
        for layer in (self.reduce, *self.fuse):
            layer.bn.eps = norm_eps

    def context(self, features: Sequence[Tensor]) -> Tensor:
        *finer, top = (features[level] for level in self.levels)
        height, width = top.shape[-2:]
        window = min(self.pool, height), min(self.pool, width)
        gate = self.gate(F.avg_pool2d(top, window, (16, 20)) if self.pool else top.mean((2, 3), keepdim=True)).sigmoid()
        x: Tensor = self.reduce(top) * resize(gate, (height, width), self.align_corners)
        if self.fusion == "sum":
            return resize(x, features[self.levels[0]].shape[-2:], self.align_corners)
        x = self.project(x)
        for level, branch, fuse in reversed(list(zip(finer, self.branches, self.fuse, strict=True))):
            x = fuse(torch.cat([resize(x, level.shape[-2:], self.align_corners), branch(level)], dim=1))
        return x

    def classify(self, x: Tensor, features: Sequence[Tensor]) -> Tensor:
        logits = super().classify(x, features)
        if self.fusion == "sum":
            for level, branch in zip(self.levels, self.branches, strict=False):
                logits = logits + resize(branch(features[level]), logits.shape[-2:], self.align_corners)
        return logits
