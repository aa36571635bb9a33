"""Context encoding. arXiv:1803.08904."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.kernels.products import matmul
from lightning_app.registry import BLOCKS


@BLOCKS.register("encnet", paper="arXiv:1803.08904", year=2018)
class ContextEncoding(nn.Module):
    """A residual encoding of the whole map over a code book, which gates the channels.

    y = CBR1(x), a_nk = softmax_K(s_k |y_n - c_k|^2), e_k = sum_n a_nk (y_n - c_k), e = mean_k ReLU(BN(e_k));
    out = ReLU(x + x sigmoid(W e + b)).

    The residuals y_n - c_k, N K C numbers, are never made: the squares are multiplied out.

    Shape: (B, channels, H, W) -> the same; the encoding e (B, channels).

    Args:
        codes: code words K.

    Reference: OpenMMLab's EncHead.
    """

    def __init__(self, channels: int, codes: int = 32) -> None:
        super().__init__()
        bound = (codes * channels) ** -0.5
        self.project = ConvBNReLU(channels, channels)
        self.codewords = nn.Parameter(torch.empty(codes, channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(codes).uniform_(-1, 0))
        self.norm = nn.BatchNorm1d(codes)
        self.gate = nn.Linear(channels, channels)

    def encode(self, x: Tensor) -> Tensor:
        """The encoding e of a map, (B, channels)."""
        y = self.project(x).flatten(2)
        with torch.autocast(x.device.type, enabled=False):  # sums over all positions leave fp16's range
            y = y.to(self.codewords.dtype)
            distance = y.square().sum(1, keepdim=True) - 2 * matmul(self.codewords, y)
            distance = distance + self.codewords.square().sum(1)[:, None]
            shares = (self.scale[:, None] * distance).softmax(1)
            residuals = matmul(shares, y.mT) - shares.sum(-1, keepdim=True) * self.codewords
            return F.relu(self.norm(residuals)).mean(1)

    def apply_gate(self, x: Tensor, encoding: Tensor) -> Tensor:
        """The map with its channels gated by an encoding."""
        gate: Tensor = self.gate(encoding).sigmoid()
        return F.relu(x * (1 + gate)[..., None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_gate(x, self.encode(x))
