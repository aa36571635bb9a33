"""Interlaced sparse self-attention, the map regrouped before it is projected."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import isanet


def relate(attention: torch.nn.Module, out: torch.nn.Module, x: Tensor) -> Tensor:
    q, k, v = (y.flatten(2) for y in attention.project(x))
    weights = ((q.mT @ k) * attention.scale).softmax(-1)
    return out((weights @ v.mT).mT.reshape(x.shape[0], -1, *x.shape[2:]))


def interlace(stage: isanet.InterlacedAttention, x: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    h, w = stage.cell
    down, right = -height % h, -width % w
    x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
    rows, columns = x.shape[2] // h, x.shape[3] // w
    x = x.reshape(batch, -1, rows, h, columns, w).permute(0, 3, 5, 1, 2, 4).reshape(batch * h * w, -1, rows, columns)
    x = relate(stage.far, stage.far_out, x)
    x = x.reshape(batch, h, w, -1, rows, columns).permute(0, 4, 5, 3, 1, 2).reshape(batch * rows * columns, -1, h, w)
    x = relate(stage.near, stage.near_out, x)
    x = x.reshape(batch, rows, columns, -1, h, w).permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, rows * h, columns * w)
    return x[:, :, down // 2 : down // 2 + height, right // 2 : right // 2 + width]


class InterlacedSparseSelfAttention(isanet.InterlacedSparseSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        own = x if self.widen is None else self.widen(x)
        return self.fuse(torch.cat([*(interlace(stage, x) for stage in self.stages), own], dim=1))
