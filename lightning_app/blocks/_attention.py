"""softmax(Q K^T) V, never holding the N x N matrix."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, pieces
from lightning_app.blocks._products import by_onednn, products

CHUNK_ELEMENTS = 2**20  # of the attention map held at a time: 4 MiB in fp32, which caches hold
MIN_ROWS = 64  # of a chunk: fewer make thin, slow products; many more, chunks whose memory malloc returns each time


class SelfAttention(nn.Module):
    """Query, key and value of the same map: y_i = sum_j softmax_j(d^-1/2 q_i.k_j) v_j.

    Args:
        depth: convolutions, each with BN and activation, that make the query and the key.
        shared: the query is the key.
        bias, slope: of those convolutions, see :class:`ConvBNReLU`.
        value_bias: of the value's one convolution, which has neither BN nor activation.

    Shape: (B, channels, H, W) -> (B, value_channels, H, W).
    """

    def __init__(
        self,
        channels: int,
        key_channels: int,
        value_channels: int,
        *,
        depth: int = 1,
        shared: bool = False,
        bias: bool = False,
        slope: float = 0.0,
        value_bias: bool = True,
    ) -> None:
        super().__init__()

        def projection() -> nn.Sequential:
            widths = [channels] + [key_channels] * depth
            return nn.Sequential(*(ConvBNReLU(i, o, bias=bias, slope=slope) for i, o in pairwise(widths)))

        self.scale = key_channels**-0.5
        self.query = projection()
        self.key = None if shared else projection()
        self.value = Conv1x1(channels, value_channels, bias=value_bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value maps."""
        query = self.query(x)
        return query, query if self.key is None else self.key(x), self.value(x)

    def forward(self, x: Tensor) -> Tensor:
        return attention(*self.project(channels_last(x)), self.scale)


def channels_last(x: Tensor) -> Tensor:
    """The same map laid out so that :func:`tokens` of it, and of its 1x1 convolutions, is a view."""
    return x.contiguous(memory_format=torch.channels_last)


def tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C), contiguous: what every fused kernel asks for; free where ``x`` is channels_last."""
    return x.flatten(2).transpose(1, 2).contiguous()


def to_map(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, H*W, C) -> (B, C, H, W), a view."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *size)


def attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """:func:`attend` over the positions of maps: (B, d, H, W), (B, d, M...), (B, e, M...) -> (B, e, H, W)."""
    return to_map(attend(tokens(query), tokens(key), tokens(value), scale), query.shape[-2:])


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """y_i = sum_j softmax_j(scale q_i.k_j) v_j.

    Fused where a kernel takes the shapes (CPU: equal widths; CUDA: any) and nothing is faster; otherwise in chunks of
    queries whose weights are recomputed in the backward pass. Memory is O(N) both ways.

    Shape: contiguous q (B, N, d), k (B, M, d), v (B, M, e) -> (B, N, e).
    """
    q, k = q.to(v.dtype), k.to(v.dtype)
    fused = q.is_cuda or (q.shape[-1] == v.shape[-1] and not by_onednn(q, k.mT))
    if fused or torch.compiler.is_exporting():
        return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], scale=scale)[:, 0]
    y: Tensor = _ChunkedAttention.apply(q, k, v, scale)
    return y


def to_cells(x: Tensor, cell: tuple[int, int], *, across: bool = False) -> Tensor:
    """Cut a map whose sides ``cell`` = (h, w) divides into many small ones, channels last.

    Shape: (B, C, H, W) -> (B H/h W/w, C, h, w), one map per cell; ``across`` cells (B h w, C, H/h, W/w), one map per
    place in a cell.
    """
    (h, w), (batch, channels, height, width) = cell, x.shape
    x = x.permute(0, 2, 3, 1).reshape(batch, height // h, h, width // w, w, channels)
    x = x.permute(0, 2, 4, 1, 3, 5) if across else x.permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, *x.shape[3:]).permute(0, 3, 1, 2)


def from_cells(x: Tensor, size: tuple[int, int], cell: tuple[int, int], *, across: bool = False) -> Tensor:
    """Undo :func:`to_cells`: back to (B, C, *size), channels last."""
    (h, w), (height, width) = cell, size
    rows, columns = height // h, width // w
    x = x.permute(0, 2, 3, 1)
    if across:
        x = x.reshape(-1, h, w, rows, columns, x.shape[3]).permute(0, 3, 1, 4, 2, 5)
    else:
        x = x.reshape(-1, rows, columns, h, w, x.shape[3]).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, height, width, x.shape[5]).permute(0, 3, 1, 2)


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
