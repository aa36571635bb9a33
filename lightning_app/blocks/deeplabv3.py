"""Atrous spatial pyramid pooling. arXiv:1706.05587."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import ConvBNReLU, SeparableConvBNReLU, conv_upsampled
from lightning_app.registry import BLOCKS


@BLOCKS.register("deeplabv3", paper="arXiv:1706.05587", year=2017)
class AtrousPyramid(nn.Module):
    """Convolutions at several dilations beside the mean of the whole map.

    out = CBR_k([CBR1(mean(x)), branch_d(x) for d in dilations]), branch_1 = CBR1 and branch_d = CBR3 dilated by d.

    The fusing convolution takes the mean as one vector, which is never spread over the map.

    Shape: (B, channels, H, W) -> (B, out_channels, H, W).

    Args:
        out_channels: width of every branch and of the result, ``channels`` where not given.
        dilations: one branch each; (1, 12, 24, 36) at output stride 8, (1, 6, 12, 18) at 16.
        separable: make the dilated branches depthwise separable, as DeepLabV3+ does.
        fuse_kernel: k, of the fusing convolution; torchvision's weights have 1.

    Reference: OpenMMLab's ASPPHead.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int | None = None,
        dilations: Sequence[int] = (1, 12, 24, 36),
        *,
        separable: bool = False,
        fuse_kernel: int = 3,
    ) -> None:
        super().__init__()
        width = channels if out_channels is None else out_channels
        dilated = SeparableConvBNReLU if separable else ConvBNReLU
        self.image_pool = ConvBNReLU(channels, width)
        self.branches = nn.ModuleList(
            ConvBNReLU(channels, width) if dilation == 1 else dilated(channels, width, 3, dilation=dilation)
            for dilation in dilations
        )
        self.fuse = ConvBNReLU((len(self.branches) + 1) * width, width, fuse_kernel)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.image_pool(F.adaptive_avg_pool2d(x, 1))
        maps = torch.cat([branch(x) for branch in self.branches], dim=1)
        weight, width = self.fuse.conv.weight, mean.shape[1]
        y = F.conv2d(maps, weight[:, width:], padding=weight.shape[-1] // 2)
        return self.fuse.finish(y + conv_upsampled([mean], weight[:, :width], x.shape[-2:]))
