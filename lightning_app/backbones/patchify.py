"""A backbone that sees one cell and nothing beyond it."""

from torch import Tensor, nn

from lightning_app.backbones.base import Backbone
from lightning_app.blocks._layers import ConvBNReLU


class Patchify(Backbone):
    """Convolution of size and stride ``patch``, then 1x1 convolutions: a feature depends on its own patch alone.

    On ContextProbe a patch is a cell, so whatever a prediction knows of other cells the head has brought.

    features = CBR1(...CBR1(ReLU(BN(conv_patch(images))))), given ``levels`` times to heads that read several levels.

    Shape: images (B, 3, H, W) -> ``levels`` times (B, channels, H / patch, W / patch).

    Args:
        channels: width of every convolution.
        patch: pixels a side.
        depth: number of convolutions.
        levels: how often the features are given.
    """

    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)

    def __init__(self, channels: int = 64, patch: int = 8, depth: int = 2, levels: int = 4) -> None:
        super().__init__()
        self.channels = [channels] * levels
        self.reductions = [patch] * levels
        self.size_multiple = patch
        self.patches = nn.Sequential(
            nn.Conv2d(3, channels, patch, patch, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.deeper = nn.Sequential(*(ConvBNReLU(channels, channels) for _ in range(depth - 1)))

    def forward(self, images: Tensor) -> list[Tensor]:
        features: Tensor = self.deeper(self.patches(images))
        return [features] * len(self.channels)
