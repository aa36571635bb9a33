"""Position attention with the N x N map written out."""

from torch import Tensor

from lightning_app.blocks import danet


class PositionAttention(danet.PositionAttention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        weights = (q.mT @ k).softmax(-1)
        return self.gamma * (v @ weights.mT).reshape(x.shape) + x
