"""Disentangled non-local block with the N x N map written out."""

from torch import Tensor

from lightning_app.blocks import dnlnet


class DisentangledNonLocalBlock(dnlnet.DisentangledNonLocalBlock):
    def aggregate(self, x: Tensor) -> Tensor:
        g = self.g(x).flatten(2)
        theta, phi = (y.flatten(2) - y.flatten(2).mean(2, keepdim=True) for y in (self.theta(x), self.phi(x)))
        weights = theta.mT @ phi
        weights *= self.scale
        weights = weights.softmax(-1)
        mask = self.conv_mask(x).flatten(2).softmax(-1)
        y = (weights @ g.mT).mT + g @ mask.mT
        return y.reshape(x.shape[0], g.shape[1], *x.shape[2:])
