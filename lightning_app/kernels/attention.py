"""softmax(Q K^T) V, never holding the N x N matrix."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lightning_app.kernels.cutting import pieces
from lightning_app.kernels.products import by_onednn, products
from lightning_app.kernels.switch import is_fast

CHUNK_ELEMENTS = 2**20  # of the attention map held at a time: 4 MiB in fp32, which caches hold
MIN_ROWS = 64  # of a chunk: fewer make thin, slow products; many more, chunks whose memory malloc returns each time


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """y_i = sum_j softmax_j(scale q_i.k_j) v_j.

    Fused where a kernel takes the shapes (CPU: equal widths; CUDA: any) and nothing is faster; otherwise in chunks of
    queries whose weights are recomputed in the backward pass. Memory is O(N) both ways.

    Shape: contiguous q (B, N, d), k (B, M, d), v (B, M, e) -> (B, N, e).
    """
    q, k = q.to(v.dtype), k.to(v.dtype)
    if not is_fast():
        return torch.softmax(scale * q @ k.mT, dim=-1).to(v.dtype) @ v
    fused = q.is_cuda or (q.shape[-1] == v.shape[-1] and not by_onednn(q, k.mT))
    if fused or torch.compiler.is_exporting():
        return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], scale=scale)[:, 0]
    y: Tensor = _ChunkedAttention.apply(q, k, v, scale)
    return y


class _ChunkedAttention(torch.autograd.Function):
    """Chunks of queries, whose weights are made again in the backward pass."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        y, v = v.new_empty(*q.shape[:2], v.shape[2]), _by_columns(v)
        for maps, rows in _chunks(q, k):
            y[maps, rows] = products(_weights(q[maps, rows] * scale, k[maps]), v[maps])
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: Tensor) -> None:
        *maps, ctx.scale = inputs
        ctx.save_for_backward(*maps, output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, y = ctx.saved_tensors
        grad_q, columns = torch.empty_like(q), _by_columns(k)
        grad_k, grad_v = k.new_zeros(k.mT.shape), v.new_zeros(v.mT.shape)  # transposed: long rows are written faster
        for maps, rows in _chunks(q, k):
            q_, g = q[maps, rows] * ctx.scale, grad[maps, rows]
            p = _weights(q_, k[maps])
            grad_v[maps] += products(g.mT, p)
            mean = (g * y[maps, rows]).sum(-1, keepdim=True)  # of the weights' gradients under the weights
            s = products(g, v[maps].mT).sub_(mean).mul_(p)
            grad_q[maps, rows] = products(s, columns[maps]).mul_(ctx.scale)
            grad_k[maps] += products(q_.mT, s)
        return grad_q, grad_k.mT, grad_v.mT, None


def _by_columns(x: Tensor) -> Tensor:
    """The same matrices, columns side by side: as the right factor of thin products they are read twice as fast."""
    return x.mT.contiguous().mT


def _weights(q: Tensor, k: Tensor) -> Tensor:
    return torch.softmax(products(q, k.mT), dim=-1).to(q.dtype)


def _chunks(q: Tensor, k: Tensor) -> Iterator[tuple[slice, slice]]:
    """Maps and rows of the attention map that are held at a time."""
    return pieces(q.shape[0], q.shape[1], max(CHUNK_ELEMENTS // k.shape[1], MIN_ROWS))
