"""The global context block as the formulas stand."""

import torch
from torch import Tensor

from lightning_app.blocks import gcnet


class GlobalContext(gcnet.GlobalContext):
    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None:
            context = x.mean((2, 3), keepdim=True)
        else:
            weights = self.mask(x).flatten(2).softmax(2).unsqueeze(3)
            context = torch.matmul(x.flatten(2).unsqueeze(1), weights).transpose(1, 2)
        if self.mul is not None:
            x = x * torch.sigmoid(self.mul(context))
        if self.add is not None:
            x = x + self.add(context)
        return x
