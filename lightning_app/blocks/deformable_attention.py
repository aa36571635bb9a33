"""Multi-scale deformable attention, in plain PyTorch. arXiv:2010.04159."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DeformableAttention(nn.Module):
    """Each token looks at a few places of every level, where it says, around its own place.

    y_i = W sum over levels l and points p of A_ilp V_l(r_i + o_ilp / (w_l, h_l)), V = W' x bilinear with zeros outside,
    o and softmax(A) linear in the query.

    Shape: query and x (B, N, channels), the tokens of all levels one after the other; places (N, 2) as (x, y) in 0..1
    -> (B, N, channels).

    Args:
        heads: attention heads.
        levels, points: places that a query looks at: so many in each level.

    Reference: OpenMMLab's MultiScaleDeformableAttention.
    """

    def __init__(self, channels: int, heads: int = 8, levels: int = 3, points: int = 4) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(channels, heads * levels * points * 2)
        self.weights = nn.Linear(channels, heads * levels * points)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        nn.init.normal_(self.offsets.weight, std=0.001)
        nn.init.uniform_(self.offsets.bias, -self.points, self.points)

    def forward(self, query: Tensor, x: Tensor, places: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        batch, count, channels = query.shape
        value = self.value(x).view(batch, count, self.heads, -1)
        offsets = self.offsets(query).view(batch, count, self.heads, self.levels, self.points, 2)
        weights = self.weights(query).view(batch, count, self.heads, -1).softmax(-1)
        weights = weights.view(batch, count, self.heads, self.levels, self.points)
        y = query.new_zeros(())
        parts = value.split([height * width for height, width in sizes], dim=1)
        for level, ((height, width), part) in enumerate(zip(sizes, parts, strict=True)):
            right, down = offsets[:, :, :, level].unbind(-1)  # a tensor of the two sides would be a constant of a graph
            at = places[:, None, None] + torch.stack([right / width, down / height], dim=-1)  # (B, N, heads, points, 2)
            grid = (2 * at - 1).transpose(1, 2).flatten(0, 1)
            maps = part.permute(0, 2, 3, 1).reshape(batch * self.heads, -1, height, width)
            seen = F.grid_sample(maps, grid.to(maps.dtype), align_corners=False)  # (B heads, C / heads, N, points)
            share = weights[:, :, :, level].transpose(1, 2).flatten(0, 1).unsqueeze(1)
            y = y + (seen * share).sum(-1)
        out: Tensor = self.out(y.view(batch, channels, count).mT)
        return out
