"""Pyramid pooling. arXiv:1612.01105."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_app.blocks._layers import ConvBNReLU, adaptive_avg_pool, fuse_upsampled
from lightning_app.registry import BLOCKS


@BLOCKS.register("pspnet", paper="arXiv:1612.01105", year=2017)
class PyramidPooling(nn.Module):
    """Means over 1, 2x2, 3x3 and 6x6 cells, laid beside the map they come from.

    out = CBR3([x, up(CBR1(pool_s(x))) for s in scales]), up bilinear.

    The fusing convolution acts on the pooled cells before they are enlarged: half of its work and all of the enlarged
    maps vanish.

    Shape: (B, channels, H, W) -> (B, out_channels, H, W).

    Args:
        out_channels: width of every branch and of the result, ``channels`` where not given.
        scales: cells per side of each pooling.

    Reference: OpenMMLab's PSPHead.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int | None = None,
        scales: Sequence[int] = (1, 2, 3, 6),
        *,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        width = channels if out_channels is None else out_channels
        self.scales, self.align_corners = tuple(scales), align_corners
        self.branches = nn.ModuleList(ConvBNReLU(channels, width) for _ in self.scales)
        self.fuse = ConvBNReLU(channels + len(self.scales) * width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [branch(adaptive_avg_pool(x, scale)) for scale, branch in zip(self.scales, self.branches, strict=True)]
        return fuse_upsampled(self.fuse, x, pooled, self.align_corners)
