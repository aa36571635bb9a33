"""Squeeze and excitation. arXiv:1709.01507."""

from timm.layers import SEModule
from torch import Tensor, nn

from lightning_app.registry import BLOCKS


@BLOCKS.register("se", paper="arXiv:1709.01507", year=2018)
class SE(nn.Module):
    """Squeeze and excitation: out = x * sigmoid(W2 ReLU(W1 mean(x))).

    Shape: (B, channels, H, W) -> the same.

    Args:
        reduction: ``channels`` over the width between W1 and W2.
        bias: give both a bias, as the original does; many ports leave it out.

    Reference: timm's SEModule.
    """

    def __init__(self, channels: int, reduction: int = 16, *, bias: bool = True) -> None:
        super().__init__()
        self.gate = SEModule(channels, rd_channels=max(channels // reduction, 1), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = self.gate(x)
        return gated
