"""ICNet: an image at three sizes, the smaller the deeper. arXiv:1704.08545."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.backbones.base import Backbone
from lightning_app.backbones.bisenet import strided
from lightning_app.backbones.necks import Neck, new_neck
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.blocks.pspnet import PyramidPooling


class ICNet(Backbone):
    """The image through three convolutions, half of it through half a network, and half of that through the rest.

    x_1 = CBR3(CBR3(CBR3(image))), each stride 2; f = stages 1 and 2 of down(image), x_2 = CBR1(f);
    x_4 = CBR1(PPM(stages 3 and 4 of down(f))).

    Shape: normalised images (B, 3, H, W) -> x_1 at stride 8, x_2 at stride 16, x_4 at stride 32; with the neck
    ``cascade`` what that makes of them.

    Args:
        name, changes: of the ResNet, as in ``TimmBackbone``.
        light_channels: width of the first branch's convolutions.
        pyramid_channels: width of the pyramid pooling.
        out_channels: width of each branch.
        scales: cells per side of each pooling.
        align_corners: convention of every bilinear resize.
        neck: as in ``TimmBackbone``; {name: cascade} is ICNet's own.

    Reference: OpenMMLab's ICNet.
    """

    def __init__(
        self,
        name: str = "resnet50c",
        changes: dict[str, Any] | None = None,
        *,
        light_channels: int = 32,
        pyramid_channels: int = 512,
        out_channels: Sequence[int] = (64, 256, 256),
        scales: Sequence[int] = (1, 2, 3, 6),
        align_corners: bool = False,
        neck: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.resnet = TimmBackbone(name, output_stride=8, out_indices=[2, 4], changes=changes)
        self.resnet.model.maxpool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)  # keeps the last row and column
        self.mean, self.std = self.resnet.mean, self.resnet.std
        self.align_corners = align_corners
        middle, deep = self.resnet.channels
        first, second, third = out_channels
        self.light = nn.Sequential(
            strided(len(self.mean), light_channels, 3),
            strided(light_channels, light_channels, 3),
            strided(light_channels, first, 3),
        )
        self.middle = ConvBNReLU(middle, second)
        self.pyramid = PyramidPooling(deep, pyramid_channels, scales, align_corners=align_corners)
        self.deep = ConvBNReLU(pyramid_channels, third)
        self.channels, self.reductions = list(out_channels), [8, 16, 32]
        self.neck: Neck | None = None
        if neck:
            self.neck = new_neck(neck, self.channels)
            self.channels = self.neck.channels
            self.reductions = [round(r / scale) for r, scale in zip(self.reductions, self.neck.scales, strict=True)]

    def forward(self, images: Tensor) -> list[Tensor]:
        levels = self.levels(images)
        return levels if self.neck is None else self.neck(levels)

    def levels(self, images: Tensor) -> list[Tensor]:
        """The three branches, in front of the neck."""
        resnet: Any = self.resnet.model
        x = resnet.act1(resnet.bn1(resnet.conv1(self._half(images))))
        x = resnet.layer2(resnet.layer1(resnet.maxpool(x)))
        y = resnet.layer4(resnet.layer3(self._half(x)))
        return [self.light(images), self.middle(x), self.deep(self.pyramid(y))]

    def _half(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=self.align_corners)
