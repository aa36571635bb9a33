"""BiSeNet's two paths. arXiv:1808.00897."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.backbones.base import Backbone
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.blocks._layers import ConvBNReLU


def strided(in_channels: int, out_channels: int, kernel_size: int) -> ConvBNReLU:
    """A convolution with BN and ReLU that halves the map."""
    layer = ConvBNReLU(in_channels, out_channels, kernel_size)
    layer.conv.stride = (2, 2)
    return layer


class Gate(nn.Module):
    """x * sigmoid(BN(W mean(x))), or of its positive part. Shape: (B, channels, H, W) -> the same."""

    def __init__(self, channels: int, slope: float | None = None) -> None:
        super().__init__()
        self.gate = ConvBNReLU(channels, channels, slope=slope)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.gate(F.adaptive_avg_pool2d(x, 1)).sigmoid()
        return x * gate


class BiSeNetV1(Backbone):
    """A wide shallow path for detail beside a network whose deep levels are gated and handed up, and what both make.

    c_32 = CBR3(up(G(CBR3(x_32)) + CBR1(mean(x_32)))), c_16 = CBR3(up(G(CBR3(x_16)) + c_32)), f = CBR1([s, c_16]),
    y = f + G(f), G a gate by the mean (in y at least 1/2) and s the shallow path.

    Shape: normalised images (B, 3, H, W) -> y at stride 8, c_16 at stride 8 and c_32 at stride 16.

    Args:
        name, changes: of the deep path's ResNet, as in ``TimmBackbone``.
        channels: width of the deep path's levels.
        detail_channels: widths of the shallow path.
        out_channels: width of what both make.

    Reference: OpenMMLab's BiSeNetV1.
    """

    def __init__(
        self,
        name: str = "resnet18",
        changes: dict[str, Any] | None = None,
        *,
        channels: int = 128,
        detail_channels: Sequence[int] = (64, 64, 64, 128),
        out_channels: int = 256,
    ) -> None:
        super().__init__()
        self.resnet = TimmBackbone(name, out_indices=[2, 3, 4], changes=changes)
        self.mean, self.std = self.resnet.mean, self.resnet.std
        _, middle, deep = self.resnet.channels
        widths = [len(self.mean), *detail_channels]
        self.detail = nn.Sequential(
            strided(widths[0], widths[1], 7),
            strided(widths[1], widths[2], 3),
            strided(widths[2], widths[3], 3),
            ConvBNReLU(widths[3], widths[4]),
        )
        self.refine16 = nn.Sequential(ConvBNReLU(middle, channels, 3), Gate(channels))
        self.refine32 = nn.Sequential(ConvBNReLU(deep, channels, 3), Gate(channels))
        self.head16, self.head32 = ConvBNReLU(channels, channels, 3), ConvBNReLU(channels, channels, 3)
        self.whole = ConvBNReLU(deep, channels)
        self.fuse, self.gate = ConvBNReLU(widths[4] + channels, out_channels), Gate(out_channels, 0.0)
        self.channels, self.reductions = [out_channels, channels, channels], [8, 8, 16]

    def forward(self, images: Tensor) -> list[Tensor]:
        x8, x16, x32 = self.resnet.levels(images)
        deep = self.refine32(x32) + self.whole(F.adaptive_avg_pool2d(x32, 1))
        deep = self.head32(F.interpolate(deep, x16.shape[-2:]))
        middle = self.head16(F.interpolate(self.refine16(x16) + deep, x8.shape[-2:]))
        fused = self.fuse(torch.cat([self.detail(images), middle], dim=1))
        return [fused + self.gate(fused), middle, deep]
