"""Channel attention as the reference writes it."""

from torch import Tensor

from lightning_app.blocks import danet


class ChannelAttention(danet.ChannelAttention):
    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        energy = flat @ flat.mT
        weights = (energy.amax(-1, keepdim=True).expand_as(energy) - energy).softmax(-1)
        return self.gamma * (weights @ flat).reshape(x.shape) + x
