"""Compact generalised non-local: attention between all positions and channels of a group at once."""

import math
from typing import Literal

from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError

GAMMA = 1e-4  # width of the Gaussian, fixed in the authors' code


@BLOCKS.register("cgnl", paper="arXiv:1810.13125", year=2018)
class CompactNonLocal(nn.Module):
    """The CGNL block.

    t, p, g are bias-free 1x1 convolutions to ``width`` channels, cut into groups and flattened over the group's
    channels and positions, length L:

    dot  y = (p . g) t;
    rbf  y = sum_{k=0..order} a_k (p^k . g) t^k, a_k = exp(-2 gamma) (2 gamma)^k / k!, the Taylor terms of a Gaussian;
    out = x + GN(W_z y), W_z a grouped 1x1 convolution without bias, GN a group norm of the same groups.

    In the dot form the attention is one scalar per group, which the group norm divides out again: only its sign stays.
    Convolutions start N(0, 0.01), the group norm at zero: the block starts as the identity.

    Shape: (B, channels, H, W) -> the same. Time O(N C width), no N x N map.

    Args:
        width: channels of t, p, g; channels // 2 if not given.
        groups: into how many groups of channels they are cut.
        kernel: "dot" or "rbf".
        order: highest Taylor term of "rbf".
        use_scale: divide the attention by sqrt(L).

    Raises:
        InputError: if the groups do not divide the channels.

    Paper: https://arxiv.org/abs/1810.13125. Consulted: github.com/KaiyuYue/cgnl-network.pytorch.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int | None = None,
        groups: int = 8,
        kernel: Literal["dot", "rbf"] = "dot",
        order: int = 3,
        use_scale: bool = False,
    ) -> None:
        super().__init__()
        width = width or channels // 2
        if channels % groups or width % groups:
            raise InputError(f"groups={groups} must divide channels={channels} and width={width}.")
        self.groups, self.kernel, self.use_scale = groups, kernel, use_scale
        self.coefficients = [math.exp(-2 * GAMMA) * (2 * GAMMA) ** k / math.factorial(k) for k in range(order + 1)]
        self.t = Conv1x1(channels, width, bias=False)
        self.p = Conv1x1(channels, width, bias=False)
        self.g = Conv1x1(channels, width, bias=False)
        self.z = nn.Conv2d(width, channels, 1, groups=groups, bias=False)
        self.gn = nn.GroupNorm(groups, channels)
        for conv in (self.t, self.p, self.g, self.z):
            nn.init.normal_(conv.weight, std=0.01)
        nn.init.zeros_(self.gn.weight)
        nn.init.zeros_(self.gn.bias)

    def forward(self, x: Tensor) -> Tensor:
        t, p, g = (conv(x).reshape(x.shape[0], self.groups, -1) for conv in (self.t, self.p, self.g))
        scale = t.shape[-1] ** -0.5 if self.use_scale else 1.0
        if self.kernel == "dot":
            y = (p * g).sum(-1, keepdim=True) * scale * t
        else:
            # Horner's rule on both sides: no power of t or p is built twice, none is stacked.
            attention = [g.sum(-1, keepdim=True)]
            for _ in self.coefficients[1:]:
                g = g * p
                attention.append(g.sum(-1, keepdim=True))
            y = attention[-1] * (self.coefficients[-1] * scale)
            for a, c in zip(attention[-2::-1], self.coefficients[-2::-1], strict=True):
                y = y * t + a * (c * scale)
        out: Tensor = self.gn(self.z(y.expand_as(t).reshape(x.shape[0], -1, *x.shape[2:])))
        return x + out
