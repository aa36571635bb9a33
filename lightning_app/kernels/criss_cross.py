"""Attention over the row and the column of each position, by the fastest way that the device has."""

from importlib.util import find_spec

import torch
from torch import Tensor

from lightning_app.kernels.products import matmul

TRITON = find_spec("triton") is not None  # torch brings it on Linux with CUDA


def criss_cross(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """y_i = sum_j softmax_j(q_i.k_j) v_j, j in the row or the column of i, channels last.

    By a kernel that holds no map of its weights on CUDA with triton and d <= 128, else by ``products_of_lines``.

    Shape: q, k (B, H, W, d), v (B, H, W, e) -> (B, H, W, e).
    """
    if (
        q.is_cuda
        and TRITON
        and q.dtype == k.dtype == v.dtype
        and q.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and q.shape[-1] <= 128
        and not torch.compiler.is_exporting()
        and not torch.onnx.is_in_onnx_export()
    ):
        from lightning_app.kernels import criss_cross_triton as kernel

        if kernel.runs_on(q.device):
            return kernel.criss_cross(q, k, v)
    return products_of_lines(q, k, v)


def products_of_lines(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same as products of matrices: every row with itself, every column with itself, one softmax over both."""
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
