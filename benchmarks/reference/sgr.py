"""Symbolic graph reasoning as the formulas stand: every map is projected at every position."""

import torch
from torch import Tensor

from lightning_app.blocks import sgr


class SymbolicReasoning(sgr.SymbolicReasoning):
    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose(1, 2)
        votes = self.vote(x).flatten(2).softmax(1)
        gathered = votes @ self.enter(pixels) / pixels.shape[1]
        words = self.embeddings.expand(len(x), -1, -1)
        nodes = (self.adjacency @ self.reason(torch.cat([gathered, words], dim=2))).relu()
        if self.compare is not None:
            back = (pixels @ self.compare.weight @ nodes.transpose(1, 2) / x.shape[1] ** 0.5).softmax(2)
        else:
            back = self.focus(x).flatten(2).softmax(2).transpose(1, 2).expand(-1, -1, nodes.shape[1])
        return x + self.leave(back @ nodes).relu().transpose(1, 2).reshape(x.shape)
