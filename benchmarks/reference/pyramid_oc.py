"""Pyramid object context, one cell at a time."""

import torch
from torch import Tensor

from lightning_app.blocks import ocnet


def grid_context(stage: ocnet.GridContextPooling, x: Tensor) -> Tensor:
    q, k, v = stage.attention.project(x)
    height, width = x.shape[2] // stage.size, x.shape[3] // stage.size
    y = torch.zeros_like(v)
    for i in range(stage.size):
        for j in range(stage.size):
            rows = slice(i * height, (i + 1) * height if i < stage.size - 1 else None)
            columns = slice(j * width, (j + 1) * width if j < stage.size - 1 else None)
            one, two, three = (z[:, :, rows, columns].flatten(2) for z in (q, k, v))
            weights = ((one.mT @ two) * stage.attention.scale).softmax(-1)
            y[:, :, rows, columns] = (weights @ three.mT).mT.reshape(v[:, :, rows, columns].shape)
    return stage.out(y)


class PyramidOC(ocnet.PyramidOC):
    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(torch.cat([self.widen(x), *(grid_context(stage, x) for stage in self.stages)], dim=1))
