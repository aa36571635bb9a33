"""A backbone that sees one cell and nothing beyond it."""

from itertools import pairwise

from torch import Tensor, nn

from lightning_app.backbone import Backbone
from lightning_app.blocks._layers import ConvBNReLU


class Patchify(Backbone):
    """Convolution of size and stride ``patch``, then 1x1 convolutions: a level pixel depends on its own patch alone.

    On ContextProbe a patch is a cell, so whatever a prediction knows of other cells the head has brought.

    level_0 = ReLU(BN(conv_patch(images))), level_i = CBR1(level_{i-1}); all at stride ``patch``.

    Shape: images (B, 3, H, W) -> ``depth`` levels (B, channels, H / patch, W / patch).

    Args:
        channels: width of every level.
        patch: pixels a side.
        depth: number of levels.
    """

    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)

    def __init__(self, channels: int = 64, patch: int = 8, depth: int = 4) -> None:
        super().__init__()
        self.channels = [channels] * depth
        self.reductions = [patch] * depth
        self.size_multiple = patch
        stem = nn.Sequential(nn.Conv2d(3, channels, patch, patch, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.stages = nn.ModuleList([stem, *(ConvBNReLU(i, o) for i, o in pairwise(self.channels))])

    def forward(self, images: Tensor) -> list[Tensor]:
        levels = []
        x = images
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels
