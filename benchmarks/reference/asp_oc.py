"""Atrous spatial pyramid of object context with the N x N map written out."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import ocnet


class ASPOC(ocnet.ASPOC):
    def forward(self, x: Tensor) -> Tensor:
        stage, local = self.pooling, self.local(x)
        pooled = F.max_pool2d(local, stage.size)
        q, k, v = (y.flatten(2) for y in stage.attention.project(pooled))
        weights = ((q.mT @ k) * stage.attention.scale).softmax(-1)
        y = stage.out((weights @ v.mT).mT.reshape(x.shape[0], v.shape[1], *pooled.shape[2:]))
        context = self.tail(F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=True))
        return self.fuse(torch.cat([context, *(branch(x) for branch in self.branches)], dim=1))
