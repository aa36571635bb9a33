"""Graph units as the formulas stand: every difference of a position and a vertex, one unit after the other."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import beyond_grids


class GraphUnits(beyond_grids.GraphUnits):
    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose(1, 2)
        maps = [x]
        anchors, scales = self.anchors.split(self.vertices), self.scales.sigmoid().split(self.vertices)
        for w, s, reason, norm in zip(anchors, scales, self.reason, self.norm, strict=True):
            differences = [(pixels - w[k]) / s[k] for k in range(len(w))]
            q = torch.stack([-0.5 * d.square().sum(2) for d in differences], dim=2).softmax(2)
            gathered = [(q[..., k : k + 1] * d).sum(1) for k, d in enumerate(differences)]
            z = F.normalize(torch.stack(gathered, dim=1) / q.sum(1).unsqueeze(2), dim=2)
            node = norm(reason(z @ z.transpose(1, 2) @ z).transpose(1, 2)).relu()
            maps.append((q @ node.transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:]))
        return self.fuse(torch.cat(maps, dim=1))
