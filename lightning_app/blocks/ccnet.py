"""Criss-cross attention. arXiv:1811.11721."""

import torch
from torch import Tensor, nn

from lightning_app import kernels
from lightning_app.blocks._layers import Conv1x1
from lightning_app.blocks._looks import At, Look
from lightning_app.kernels.products import linear
from lightning_app.registry import BLOCKS


@BLOCKS.register("ccnet", paper="arXiv:1811.11721", year=2019)
class CrissCrossAttention(nn.Module):
    """Each position attends to its row and its column; applied twice, it has heard from everywhere.

    x <- x + gamma sum_j softmax_j(q_i.k_j) v_j, ``recurrence`` times with the same weights; j runs over the H + W - 1
    positions that share i's row or column, i itself once; gamma starts at 0.

    Shape: (B, C, H, W) -> (B, C, H, W). Time O(N C (H + W)) a pass; memory O(N C) where a kernel runs, see
    ``lightning_app.kernels.criss_cross.criss_cross``, and O(N (C + H + W)) elsewhere.

    Args:
        recurrence: passes.
        reduction: width of query and key is channels // reduction, at least 1.

    Paper: Huang et al., CCNet, ICCV 2019. Consulted: github.com/speedinghzl/CCNet.
    """

    def __init__(self, channels: int, *, recurrence: int = 2, reduction: int = 8) -> None:
        super().__init__()
        self.recurrence = recurrence
        inner = max(channels // reduction, 1)
        self.query = Conv1x1(channels, inner)
        self.key = Conv1x1(channels, inner)
        self.value = Conv1x1(channels, channels)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if kernels.is_fast():
            return self.fast(x)
        for _ in range(self.recurrence):
            x = x + self.gamma * criss_cross(self.query(x), self.key(x), self.value(x))  # (B, C, H, W)
        return x

    def fast(self, x: Tensor) -> Tensor:
        """The same, channels last throughout, with one product for query, key and value."""
        projections = (self.query, self.key, self.value)
        weight = torch.cat([p.weight for p in projections]).flatten(1)
        bias = torch.cat([p.bias for p in projections if p.bias is not None])
        y = x.permute(0, 2, 3, 1).contiguous()  # so that neither rows nor columns need a copy of their own
        for _ in range(self.recurrence):
            projected = linear(y.flatten(1, 2), weight, bias).view(*y.shape[:3], -1)
            q, k, v = torch.split(projected, [p.out_channels for p in projections], dim=-1)
            y = torch.addcmul(y, kernels.criss_cross(q, k, v), self.gamma)
        return y.permute(0, 3, 1, 2)

    def looks(self, at: At, x: Tensor) -> list[Look]:
        """The cross of each pass, and where news comes from by way of all of them, each position's own left out."""
        start = x.new_zeros(1, *x.shape[2:])
        start[0, at[0], at[1]] = 1
        passes = []
        for _ in range(self.recurrence):
            query, key = self.query(x), self.key(x)
            passes.append(cross_weights(query, key))
            x = x + self.gamma * criss_cross(query, key, self.value(x))
        looks = [Look(f"pass {number}", _spread(start, *cross)[0]) for number, cross in enumerate(passes, 1)]
        if len(passes) > 1:
            for cross in reversed(passes):
                start = _spread(start, *cross)
            looks.append(Look(f"through {len(passes)} passes", start[0]))
        return looks


def criss_cross(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """y_i = sum_j softmax_j(q_i.k_j) v_j, j in the column of i or in its row.

    Shape: (B, d, H, W) twice, (B, e, H, W) -> (B, e, H, W).
    """
    of_column, of_row = (weights.to(value.dtype) for weights in cross_weights(query, key))
    return torch.einsum("bhwi,beiw->behw", of_column, value) + torch.einsum("bhwj,behj->behw", of_row, value)


def cross_weights(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """softmax_j(q_i.k_j) for the j in i's column, 0 at i itself, and for those in its row.

    Shape: (B, d, H, W) twice -> (B, H, W, H), (B, H, W, W).
    """
    height = query.shape[2]
    column = torch.einsum("bdhw,bdiw->bhwi", query, key)
    row = torch.einsum("bdhw,bdhj->bhwj", query, key)
    itself = torch.eye(height, dtype=torch.bool, device=query.device).view(1, height, 1, height)
    column = column.masked_fill(itself, float("-inf"))  # i stands in its row already
    weights = torch.cat([column, row], dim=3).softmax(3)
    return weights[..., :height], weights[..., height:]


def _spread(shares: Tensor, of_column: Tensor, of_row: Tensor) -> Tensor:
    """What each position hands to its cross by the weights: (B, H, W) -> (B, H, W)."""
    return torch.einsum("bhw,bhwi->biw", shares, of_column) + torch.einsum("bhw,bhwj->bhj", shares, of_row)
