"""EMAU as the formulas stand: the frozen convolution on the whole map, both normalisations in turn."""

import torch
from torch import Tensor

from lightning_app.blocks import emanet


class EMAU(emanet.EMAU):
    @torch.no_grad()
    def fit(self, x: Tensor) -> tuple[Tensor, Tensor]:
        v = self.mid(x).flatten(2)
        bases = self.bases.repeat(len(x), 1, 1)
        for _ in range(self.stages):
            z = (v.transpose(1, 2) @ bases).softmax(2)
            bases = v @ (z / (self.eps + z.sum(1, keepdim=True)))
            bases = bases / (self.eps + bases.norm(dim=1, keepdim=True))
        return z.transpose(1, 2), bases
