"""Pyramid pooling as the formulas stand: every pooled map enlarged, all concatenated, then convolved."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import pspnet
from lightning_app.blocks._layers import resize


class PyramidPooling(pspnet.PyramidPooling):
    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for scale, branch in zip(self.scales, self.branches, strict=True):
            maps.append(resize(branch(F.adaptive_avg_pool2d(x, scale)), x.shape[2:], self.align_corners))
        return self.fuse(torch.cat(maps, dim=1))
