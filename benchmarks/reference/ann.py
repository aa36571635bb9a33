"""Asymmetric pyramid non-local block, every step on the whole map."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import ann


def sample(x: Tensor, scales: tuple[int, ...], pool: str) -> Tensor:
    pooling = F.adaptive_avg_pool2d if pool == "avg" else F.adaptive_max_pool2d
    return torch.cat([pooling(x, scale).flatten(2) for scale in scales], dim=2)


def ask(stage: ann.AsymmetricAttention, x: Tensor) -> Tensor:
    value = sample(stage.value(x), stage.scales, stage.pool)
    query = stage.query(x).flatten(2)
    key = sample(stage.query(x), stage.scales, stage.pool)
    weights = ((query.mT @ key) * key.shape[1] ** -0.5).softmax(-1)
    return stage.out((weights @ value.mT).mT.contiguous().view(x.shape[0], value.shape[1], *x.shape[2:]))


class APNB(ann.APNB):
    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(torch.cat([sum(ask(stage, x) for stage in self.stages), x], dim=1))
