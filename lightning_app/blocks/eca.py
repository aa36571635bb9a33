"""Efficient channel attention. arXiv:1910.03151."""

from timm.layers import EcaModule
from torch import Tensor, nn

from lightning_app.registry import BLOCKS


@BLOCKS.register("eca", paper="arXiv:1910.03151", year=2020)
class ECA(nn.Module):
    """Efficient channel attention: out = x * sigmoid(w * mean(x)), w a 1-D convolution along the channels.

    Shape: (B, channels, H, W) -> the same.

    Args:
        kernel_size: odd; where not given, the paper's |log2(channels) / 2 + 1/2| rounded to an odd number, 3 or more.

    Reference: timm's EcaModule.
    """

    def __init__(self, channels: int, kernel_size: int | None = None) -> None:
        super().__init__()
        self.gate = EcaModule(channels) if kernel_size is None else EcaModule(kernel_size=kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = self.gate(x)
        return gated
