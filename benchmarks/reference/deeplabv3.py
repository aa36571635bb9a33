"""The atrous pyramid as the formulas stand: the mean spread over the map, all concatenated, then convolved."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import deeplabv3
from lightning_app.blocks._layers import resize


class AtrousPyramid(deeplabv3.AtrousPyramid):
    def forward(self, x: Tensor) -> Tensor:
        mean = resize(self.image_pool(F.adaptive_avg_pool2d(x, 1)), x.shape[2:])
        return self.fuse(torch.cat([mean, *(branch(x) for branch in self.branches)], dim=1))
