"""Adaptive context module. CVPR 2019, "Adaptive Pyramid Context Network for Semantic Segmentation"."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, adaptive_avg_pool
from lightning_app.kernels.products import conv1x1, matmul
from lightning_app.registry import BLOCKS


@BLOCKS.register("apcnet", paper="CVPR 2019", year=2019)
class ACM(nn.Module):
    """Adaptive context module: cells of the map, weighted anew at every position.

    u = CBR1(x), g = CBR1(mean(u)), p = CBR1(pool_s(x)); a = sigmoid(W (u + g) + b), one weight per position and cell;
    out = ReLU(CBR1(sum_cells a p) + u), then CBR1 with ``fusion``.

    The residual convolution acts on the s^2 cells before they are spread over the map, W on u and g apart.

    Shape: (B, channels, H, W) -> (B, out_channels, H, W).

    Args:
        out_channels: width of the result, ``channels`` where not given.
        scale: cells per side s.
        fusion: end with one more 1x1 convolution.

    Reference: github.com/Junjun2016/APCNet.
    """

    def __init__(self, channels: int, out_channels: int | None = None, scale: int = 3, *, fusion: bool = True) -> None:
        super().__init__()
        width = channels if out_channels is None else out_channels
        self.scale = scale
        self.pooled = ConvBNReLU(channels, width)
        self.reduce = ConvBNReLU(channels, width)
        self.global_info = ConvBNReLU(width, width)
        self.affinity = Conv1x1(width, scale**2)
        self.residual = ConvBNReLU(width, width)
        self.fuse = ConvBNReLU(width, width) if fusion else None

    def forward(self, x: Tensor) -> Tensor:
        cells = self.residual.conv(self.pooled(adaptive_avg_pool(x, self.scale))).flatten(2)
        x = self.reduce(x)
        g = self.global_info(F.adaptive_avg_pool2d(x, 1))
        affinity = torch.sigmoid(conv1x1(x, self.affinity.weight) + self.affinity(g)).flatten(2)
        y = F.relu(self.residual.finish(matmul(cells, affinity).view_as(x)) + x)
        return y if self.fuse is None else self.fuse(y)
