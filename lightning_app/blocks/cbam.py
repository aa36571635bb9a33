"""Convolutional block attention. arXiv:1807.06521."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_app.registry import BLOCKS
from lightning_app.util.errors import check_choice

Pool = Literal["avg", "max", "lp", "lse"]

POOLS: Mapping[Pool, Callable[[Tensor], Tensor]] = {
    "avg": lambda x: x.mean(-1),
    "max": lambda x: x.max(-1).values,
    "lp": lambda x: x.norm(dim=-1),
    "lse": lambda x: x.logsumexp(-1),
}


@BLOCKS.register("cbam", paper="arXiv:1807.06521", year=2018)
class CBAM(nn.Module):
    """Convolutional block attention: first the channels are gated, then the positions.

    x = x * sigmoid(sum_pools MLP(pool_N(x))); out = x * sigmoid(BN(conv([max_C(x), mean_C(x)]))).

    Shape: (B, channels, H, W) -> the same.

    Args:
        reduction: ``channels`` over the width of the MLP.
        pools: poolings over positions that share the MLP: mean, maximum, L2 norm, log-sum-exp.
        spatial: gate the positions too.
        kernel_size: of the spatial gate's convolution.

    Reference: github.com/Jongchan/attention-module; timm's CbamModule knows "avg" and "max" only.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        *,
        pools: Sequence[Pool] = ("avg", "max"),
        spatial: bool = True,
        kernel_size: int = 7,
    ) -> None:
        super().__init__()
        for pool in pools:
            check_choice("pools", pool, ("avg", "max", "lp", "lse"))
        hidden = max(channels // reduction, 1)
        self.pools = tuple(pools)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.spatial: nn.Sequential | None = None
        if spatial:
            conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
            self.spatial = nn.Sequential(conv, nn.BatchNorm2d(1, momentum=0.01))

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.stack([self.mlp(POOLS[pool](x.flatten(2))) for pool in self.pools]).sum(0)
        x = x * logits.sigmoid()[..., None, None]
        if self.spatial is None:
            return x
        summary = torch.cat([x.max(1, keepdim=True).values, x.mean(1, keepdim=True)], dim=1)
        mask: Tensor = self.spatial(summary)
        return x * mask.sigmoid()
