"""Criss-cross attention. arXiv:1811.11721."""

from importlib.util import find_spec

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1
from lightning_app.blocks._products import linear, matmul
from lightning_app.registry import BLOCKS

TRITON = find_spec("triton") is not None  # torch brings it on Linux with CUDA


@BLOCKS.register("ccnet", paper="arXiv:1811.11721", year=2019)
class CrissCrossAttention(nn.Module):
    """Each position attends to its row and its column; applied twice, it has heard from everywhere.

    x <- x + gamma sum_j softmax_j(q_i.k_j) v_j, ``recurrence`` times with the same weights; j runs over the H + W - 1
    positions that share i's row or column, i itself once; gamma starts at 0.

    Shape: (B, C, H, W) -> (B, C, H, W). Time O(N C (H + W)) a pass; memory O(N C) where a kernel runs, see
    :func:`attend`, and O(N (C + H + W)) elsewhere.

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
        projections = (self.query, self.key, self.value)
        weight = torch.cat([p.weight for p in projections]).flatten(1)
        bias = torch.cat([p.bias for p in projections if p.bias is not None])
        y = x.permute(0, 2, 3, 1).contiguous()  # so that neither rows nor columns need a copy of their own
        for _ in range(self.recurrence):
            projected = linear(y.flatten(1, 2), weight, bias).view(*y.shape[:3], -1)
            q, k, v = torch.split(projected, [p.out_channels for p in projections], dim=-1)
            y = torch.addcmul(y, attend(q, k, v), self.gamma)
        return y.permute(0, 3, 1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """:func:`criss_cross`, by a kernel that holds no map of its weights on CUDA with triton and d <= 128."""
    if (
        q.is_cuda
        and TRITON
        and q.dtype == k.dtype == v.dtype
        and q.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and q.shape[-1] <= 128
        and not torch.compiler.is_exporting()
        and not torch.onnx.is_in_onnx_export()
    ):
        from lightning_app.blocks import _criss_cross_triton as kernel

        if kernel.runs_on(q.device):
            return kernel.criss_cross(q, k, v)
    return criss_cross(q, k, v)


def criss_cross(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over the row and the column of each position, one softmax over both.

    Shape: q, k (B, H, W, d), v (B, H, W, e) -> (B, H, W, e).
    """
    height = q.shape[1]
    own = torch.full((height,), float("-inf"), dtype=q.dtype, device=q.device).diag()  # the row counts it already
    column = (q.transpose(1, 2) @ k.permute(0, 2, 3, 1) + own).transpose(1, 2)
    row = q @ k.transpose(2, 3)
    p = torch.cat([column, row], dim=-1).softmax(-1).to(v.dtype)
    p_column, p_row = p[..., :height].transpose(1, 2), p[..., height:]
    return _apply(p_column, v.transpose(1, 2)).transpose(1, 2) + _apply(p_row, v)


def _apply(weights: Tensor, v: Tensor) -> Tensor:
    """``weights @ v`` of each line: (B, lines, length, length), (B, lines, length, e)."""
    return matmul(weights.flatten(0, 1), v.flatten(0, 1)).view(*v.shape)
