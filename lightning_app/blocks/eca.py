"""Efficient channel attention. arXiv:1910.03151."""

import math

from torch import Tensor, nn

from lightning_app.registry import BLOCKS


@BLOCKS.register("eca", paper="arXiv:1910.03151", year=2020)
class ECA(nn.Module):
    """Efficient channel attention: out = x * sigmoid(w * mean(x)), w a 1-D convolution along the channels.

    Shape: (B, channels, H, W) -> the same.

    Args:
        kernel_size: odd; where not given, the paper's |log2(channels) / 2 + 1/2| rounded to an odd number, 3 or more.

    Consulted: timm's EcaModule.
    """

    def __init__(self, channels: int, kernel_size: int | None = None) -> None:
        super().__init__()
        size = kernel_size or max(int((math.log2(channels) + 1) / 2) // 2 * 2 + 1, 3)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.conv(x.mean((2, 3)).unsqueeze(1))
        return x * gate.sigmoid().view(*x.shape[:2], 1, 1)
