"""EfficientViT's multi-scale linear attention. arXiv:2205.14756."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError

EPS = 1e-15  # the least denominator: a query of zeros gives zeros


class LinearAttention(nn.Module):
    """Attention without a softmax: y_i = sum_j (r(q_i).r(k_j)) v_j / sum_j r(q_i).r(k_j), r the ReLU; O(N).

    Queries, keys and values of each scale are those of the scale before, convolved k x k depthwise and mixed in groups;
    the heads of all scales stand side by side.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W).

    Args:
        dim: width of each head.
        scales: kernel of each further scale.

    Raises:
        InputError: ``dim`` does not divide the channels.

    Reference: github.com/mit-han-lab/efficientvit, LiteMLA.
    """

    def __init__(self, in_channels: int, out_channels: int, dim: int = 8, scales: Sequence[int] = (5,)) -> None:
        super().__init__()
        if in_channels % dim:
            raise InputError(f"LinearAttention with heads of {dim} needs channels that it divides, not {in_channels}")
        heads, width = in_channels // dim, 3 * in_channels
        self.dim = dim
        self.qkv = nn.Conv2d(in_channels, width, 1, bias=False)
        self.scales = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False),
                nn.Conv2d(width, width, 1, groups=3 * heads, bias=False),
            )
            for kernel in scales
        )
        self.project = nn.Conv2d(in_channels * (1 + len(scales)), out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        qkv = torch.cat([qkv, *(scale(qkv) for scale in self.scales)], dim=1)
        batch, _, height, width = qkv.shape
        qkv = qkv.view(batch, -1, 3, self.dim, height * width)  # (B, heads, 3, dim, N)
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = qkv.to(torch.promote_types(qkv.dtype, torch.float32)).unbind(2)
            q, k = F.relu(q), F.relu(k)
            values = F.pad(v, (0, 0, 0, 1), value=1.0)  # a row of ones sums the weights
            y = (values @ k.mT) @ q
            y = y[:, :, :-1] / y[:, :, -1:].clamp(min=EPS)  # an added EPS is taken for 0 by ONNX's optimisers
        y = y.to(x.dtype).reshape(batch, -1, height, width)
        normed: Tensor = self.norm(self.project(y))
        return normed


@BLOCKS.register("efficientvit", paper="arXiv:2205.14756", year=2022)
class EfficientViTBlock(nn.Module):
    """Linear attention, then an inverted bottleneck, each added: x = x + A(x); y = x + M(x).

    M = BN(W' h(depthwise3(h(W x + b)))), h the hard swish.

    Shape: (B, channels, H, W) -> the same.

    Args:
        dim, scales: as in ``LinearAttention``.
        expansion: width of the bottleneck over ``channels``.

    Reference: github.com/mit-han-lab/efficientvit, EfficientViTBlock.
    """

    def __init__(self, channels: int, dim: int = 8, *, scales: Sequence[int] = (5,), expansion: int = 4) -> None:
        super().__init__()
        hidden = expansion * channels
        self.attention = LinearAttention(channels, channels, dim, scales)
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        y = F.hardswish(self.depthwise(F.hardswish(self.expand(x))))
        z: Tensor = x + self.project(y)
        return z
