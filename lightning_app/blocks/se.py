"""Squeeze and excitation. arXiv:1709.01507."""

from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1
from lightning_app.registry import BLOCKS


@BLOCKS.register("se", paper="arXiv:1709.01507", year=2018)
class SE(nn.Module):
    """Squeeze and excitation: out = x * sigmoid(W2 ReLU(W1 mean(x))).

    Shape: (B, channels, H, W) -> the same.

    Args:
        reduction: ``channels`` over the width between W1 and W2.
        bias: give both a bias, as the original does; many ports leave it out.

    Consulted: timm's SEModule.
    """

    def __init__(self, channels: int, reduction: int = 16, *, bias: bool = True) -> None:
        super().__init__()
        width = max(channels // reduction, 1)
        self.fc1 = Conv1x1(channels, width, bias=bias)
        self.fc2 = Conv1x1(width, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu())
        return x * gate.sigmoid()
