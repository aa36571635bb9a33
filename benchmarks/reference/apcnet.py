"""The adaptive context module as the formulas stand: cells spread over the map, then convolved."""

from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import apcnet


class ACM(apcnet.ACM):
    def forward(self, x: Tensor) -> Tensor:
        cells = self.pooled(F.adaptive_avg_pool2d(x, self.scale)).flatten(2).transpose(1, 2)
        u = self.reduce(x)
        g = self.global_info(F.adaptive_avg_pool2d(u, 1)).expand_as(u)
        affinity = self.affinity(u + g).flatten(2).transpose(1, 2).sigmoid()
        z = (affinity @ cells).transpose(1, 2).unflatten(2, u.shape[2:])
        y = F.relu(self.residual(z) + u)
        return y if self.fuse is None else self.fuse(y)
