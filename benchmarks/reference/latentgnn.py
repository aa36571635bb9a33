"""The LatentGNN block as the formulas stand: every kernel's visible features, then their merging convolution."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import latentgnn


class LatentGraph(latentgnn.LatentGraph):
    def forward(self, x: Tensor) -> Tensor:
        visible = F.normalize(self.down(x), dim=1)
        back = visible if self.down_back is None else F.normalize(self.down_back(x), dim=1)
        features = []
        for kernel in self.kernels:
            gather = kernel.psi_in(visible).flatten(2)
            if kernel.psi_out is None:
                gather = distribute = F.normalize(gather, dim=1)
            else:
                gather = F.normalize(gather, dim=2)
                distribute = F.normalize(kernel.psi_out(back).flatten(2), dim=1)
            nodes = gather @ visible.flatten(2).transpose(1, 2)
            direction = F.normalize(nodes, dim=2)
            nodes = (direction @ direction.transpose(1, 2)).softmax(2) @ nodes
            feature = (nodes.transpose(1, 2) @ distribute).view_as(visible)
            features.append(feature if kernel.graph_conv is None else kernel.graph_conv(feature))
        out = self.up(torch.cat(features, dim=1))
        return x + self.gamma * out if self.residual else out
