"""The CGNL block as the formulas stand: all Taylor terms of both sides side by side."""

import torch
from torch import Tensor

from lightning_app.blocks import cgnl


class CompactNonLocal(cgnl.CompactNonLocal):
    def forward(self, x: Tensor) -> Tensor:
        merged = []
        for t, p, g in zip(*(conv(x).chunk(self.groups, dim=1) for conv in (self.t, self.p, self.g)), strict=True):
            t, p, g = (part.flatten(1).unsqueeze(1) for part in (t, p, g))
            if self.kernel == "rbf":
                t, p = (
                    torch.cat([c**0.5 * part**k for k, c in enumerate(self.coefficients)], dim=1) for part in (t, p)
                )
            attention = p @ g.transpose(1, 2)
            if self.use_scale:
                attention = attention / g.shape[2] ** 0.5
            merged.append((attention.transpose(1, 2) @ t).view(len(x), -1, *x.shape[2:]))
        return x + self.gn(self.z(torch.cat(merged, dim=1)))
