"""Criss-cross attention by einsum, each map with its own projections."""

import torch
from torch import Tensor

from lightning_app.blocks import ccnet


class CrissCrossAttention(ccnet.CrissCrossAttention):
    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[2]
        for _ in range(self.recurrence):
            q, k, v = self.query(x), self.key(x), self.value(x)
            column = torch.einsum("bchw,bciw->bwhi", q, k) + torch.full((height,), float("-inf")).diag().to(x)
            row = torch.einsum("bchw,bchj->bhwj", q, k)
            weights = torch.cat([column.transpose(1, 2), row], dim=-1).softmax(-1)
            out = torch.einsum("bciw,bhwi->bchw", v, weights[..., :height])
            out = out + torch.einsum("bchj,bhwj->bchw", v, weights[..., height:])
            x = out * self.gamma + x
        return x
