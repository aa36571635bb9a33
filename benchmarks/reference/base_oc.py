"""Object context with the N x N map written out."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import ocnet


def pool_context(stage: ocnet.ObjectContextPooling, x: Tensor) -> Tensor:
    pooled = F.max_pool2d(x, stage.size) if stage.size > 1 else x
    q, k, v = (y.flatten(2) for y in stage.attention.project(pooled))
    weights = ((q.mT @ k) * stage.attention.scale).softmax(-1)
    y = stage.out((weights @ v.mT).mT.reshape(x.shape[0], v.shape[1], *pooled.shape[2:]))
    return F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=True) if stage.size > 1 else y


class BaseOC(ocnet.BaseOC):
    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(torch.cat([sum(pool_context(stage, x) for stage in self.stages), x], dim=1))
