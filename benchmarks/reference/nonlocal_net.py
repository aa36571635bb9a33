"""Non-local block with the N x N map written out."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import nonlocal_net


class NonLocalBlock(nonlocal_net.NonLocalBlock):
    def forward(self, x: Tensor) -> Tensor:
        if self.mode != "mean_shift":
            return x + self.conv_out(self.aggregate(x))
        flat = x.flatten(2).mT
        weights = (-torch.cdist(flat, flat).square() / (2 * x.shape[1] ** 0.5)).softmax(-1)
        return (weights @ flat).mT.reshape(x.shape)

    def aggregate(self, x: Tensor) -> Tensor:
        g = self.g(x).flatten(2)
        theta, phi = (y.flatten(2) for y in self.embed(x))
        n = theta.shape[2]
        if self.mode == "concatenation":
            pairs = torch.cat([theta.unsqueeze(3).expand(-1, -1, -1, n), phi.unsqueeze(2).expand(-1, -1, n, -1)], dim=1)
            weights = F.relu(self.concat_project(pairs)).squeeze(1) / n
        else:
            weights = theta.mT @ phi
            if self.mode == "dot_product":
                weights = weights / n
            else:
                weights *= self.scale if self.mode == "embedded_gaussian" else 1
                weights = weights.softmax(-1)
        return (weights @ g.mT).mT.reshape(x.shape[0], g.shape[1], *x.shape[2:])
