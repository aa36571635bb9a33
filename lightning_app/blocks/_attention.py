"""softmax(Q K^T) V over maps, never holding the N x N matrix."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK_ELEMENTS = 2**21  # of the attention map held at a time: 8 MiB in fp32


def tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C), contiguous: what every fused kernel asks for; free where ``x`` is channels_last."""
    return x.flatten(2).transpose(1, 2).contiguous()


def to_map(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, H*W, C) -> (B, C, H, W), a view."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *size)


def attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attend over the positions of a map.

    y_i = sum_j softmax_j(scale q_i.k_j) v_j

    Fused where a kernel takes the shapes (CPU: equal widths; CUDA: any), otherwise in chunks of queries whose weights
    are recomputed in the backward pass. Memory is O(N) both ways.

    Shape: query (B, d, H, W), key (B, d, M...), value (B, e, M...) -> (B, e, H, W).
    """
    q, k, v = tokens(query).to(value.dtype), tokens(key).to(value.dtype), tokens(value)
    if q.shape[-1] == v.shape[-1] or q.is_cuda or torch.compiler.is_exporting():
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], scale=scale)[:, 0]
    else:
        y = _ChunkedAttention.apply(q * scale, k, v)
    return to_map(y, query.shape[-2:])


class _ChunkedAttention(torch.autograd.Function):
    """Query chunks; the CPU has no fused kernel for values wider or narrower than the queries."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        y = v.new_empty(*q.shape[:2], v.shape[2])
        for rows in _chunks(q, k):
            y[:, rows] = _weights(q[:, rows], k) @ v
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for rows in _chunks(q, k):
            p, g = _weights(q[:, rows], k), grad[:, rows]
            grad_v += p.transpose(1, 2) @ g
            s = g @ v.transpose(1, 2)
            s = p * (s - (p * s).sum(-1, keepdim=True))
            grad_q[:, rows] = s @ k
            grad_k += s.transpose(1, 2) @ q[:, rows]
        return grad_q, grad_k, grad_v


def _weights(q: Tensor, k: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(1, 2), dim=-1).to(q.dtype)


def _chunks(q: Tensor, k: Tensor) -> list[slice]:
    step = max(1, CHUNK_ELEMENTS // (k.shape[0] * k.shape[1]))
    return [slice(i, i + step) for i in range(0, q.shape[1], step)]
