"""Dynamic convolution module. ICCV 2019, "Dynamic Multi-Scale Filters for Semantic Segmentation"."""

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, adaptive_avg_pool
from lightning_app.registry import BLOCKS


@BLOCKS.register("dmnet", paper="ICCV 2019", year=2019)
class DCM(nn.Module):
    """Dynamic convolution module: a depthwise filter that the image itself makes.

    k = conv1(pool_f(x)), one f x f filter per channel and image; out = ReLU(BN(k * CBR1(x))), then CBR1
    with ``fusion``.

    Shape: (B, channels, H, W) -> (B, out_channels, H, W).

    Args:
        out_channels: width of the result, ``channels`` where not given.
        filter_size: side f; an even one reaches one position further up and left.
        fusion: end with one more 1x1 convolution.

    Reference: OpenMMLab's DMHead.
    """

    def __init__(
        self, channels: int, out_channels: int | None = None, filter_size: int = 3, *, fusion: bool = False
    ) -> None:
        super().__init__()
        width = channels if out_channels is None else out_channels
        self.filter_size = filter_size
        self.filter = Conv1x1(channels, width)
        self.reduce = ConvBNReLU(channels, width)
        self.norm = nn.BatchNorm2d(width)
        self.fuse = ConvBNReLU(width, width) if fusion else None

    def forward(self, x: Tensor) -> Tensor:
        filters = self.filter(adaptive_avg_pool(x, self.filter_size))
        x = self.reduce(x)
        after = (self.filter_size - 1) // 2
        before = self.filter_size - 1 - after
        padded = F.pad(x, (before, after, before, after))
        y = F.relu(self.norm(_correlate(padded, filters)))
        return y if self.fuse is None else self.fuse(y)


def _correlate(x: Tensor, filters: Tensor) -> Tensor:
    """Every channel of every image with its own filter: (B, C, H + f - 1, W + f - 1), (B, C, f, f) -> (B, C, H, W)."""
    if torch.compiler.is_exporting():  # a graph has no convolution whose groups follow the batch
        height, width = (n - filters.shape[-1] + 1 for n in x.shape[-2:])
        y = torch.zeros_like(x[..., :height, :width])
        for i, j in product(range(filters.shape[-1]), repeat=2):
            y = y + filters[..., i, j, None, None] * x[..., i : i + height, j : j + width]
        return y
    kernels = filters.flatten(0, 1).unsqueeze(1)
    y = F.conv2d(x.flatten(0, 1), kernels, groups=len(kernels))
    return y.view(*x.shape[:2], *y.shape[1:])
