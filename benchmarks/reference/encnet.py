"""Context encoding as the formulas stand: every difference of a position and a code word."""

from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import encnet


class ContextEncoding(encnet.ContextEncoding):
    def encode(self, x: Tensor) -> Tensor:
        y = self.project(x).flatten(2).transpose(1, 2)
        residuals = y.unsqueeze(2) - self.codewords
        shares = (self.scale * residuals.square().sum(3)).softmax(2)
        return F.relu(self.norm((shares.unsqueeze(3) * residuals).sum(1))).mean(1)
