"""Weighted sums over the windows of a map, never unfolding it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lightning_app.kernels.cutting import pieces
from lightning_app.kernels.switch import is_fast

SLAB_BYTES = 2**18  # of the result worked on at a time on a CPU: it stays in the cache for all taps


def taps(x: Tensor, kernel: int, *, stride: int = 1, dilation: int = 1) -> list[Tensor]:
    """The map as each of the kernel x kernel taps of a window sees it, zeros outside.

    Shape: (..., H, W) -> kernel^2 views (..., ceil(H / stride), ceil(W / stride)) of the padded map.
    """
    return _shifted(F.pad(x, _padding(kernel, dilation) * 2), kernel, stride, dilation)


def window_sum(x: Tensor, weights: Tensor, *, stride: int = 1, dilation: int = 1) -> Tensor:
    """y_cs(p) = sum_t w_ts(p) x_c(stride p + dilation t), zeros outside: per position s weighted sums of a window.

    Each slab of the result takes all its taps while it is in the cache, so memory is passed over once instead of once
    per tap.

    Shape: x (M, C, H, W), weights (M, kernel^2, S, H', W') -> (M, C, S, H', W') with H' = ceil(H / stride).
    """
    dtype = torch.promote_types(x.dtype, weights.dtype)
    if not is_fast():
        seen = taps(x.to(dtype), round(weights.shape[1] ** 0.5), stride=stride, dilation=dilation)
        return torch.stack([weights[:, None, t] * tap.unsqueeze(2) for t, tap in enumerate(seen)]).sum(0)
    y: Tensor = _WindowSum.apply(x.to(dtype).contiguous(), weights.to(dtype).contiguous(), stride, dilation)
    return y


class _WindowSum(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weights: Tensor, stride: int, dilation: int) -> Tensor:
        y = x.new_zeros(*x.shape[:2], *weights.shape[2:])
        kernel = round(weights.shape[1] ** 0.5)
        for maps, channels in _slabs(y):
            slab, w = y[maps, channels], weights[maps]
            for t, seen in enumerate(taps(x[maps, channels], kernel, stride=stride, dilation=dilation)):
                slab.addcmul_(w[:, None, t], seen.unsqueeze(2))
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
        x, weights, ctx.stride, ctx.dilation = inputs
        ctx.save_for_backward(x, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weights = ctx.saved_tensors
        kernel = round(weights.shape[1] ** 0.5)
        before, after = _padding(kernel, ctx.dilation)
        grad_x, grad_weights = torch.empty_like(x), torch.zeros_like(weights)
        for maps, channels in _slabs(grad):
            g, w, of_weights = grad[maps, channels], weights[maps], grad_weights[maps]
            seen = taps(x[maps, channels], kernel, stride=ctx.stride, dilation=ctx.dilation)
            padded = x.new_zeros(*g.shape[:2], x.shape[2] + before + after, x.shape[3] + before + after)
            for t, of_seen in enumerate(_shifted(padded, kernel, ctx.stride, ctx.dilation)):
                of_weights[:, t] += (g * seen[t].unsqueeze(2)).sum(1)
                for s in range(g.shape[2]):
                    of_seen.addcmul_(w[:, None, t, s], g[:, :, s])
            grad_x[maps, channels] = padded[..., before : before + x.shape[2], before : before + x.shape[3]]
        return grad_x, grad_weights, None, None


def _padding(kernel: int, dilation: int) -> tuple[int, int]:
    return kernel // 2 * dilation, (kernel - 1 - kernel // 2) * dilation


def _shifted(padded: Tensor, kernel: int, stride: int, dilation: int) -> list[Tensor]:
    reach = (kernel - 1) * dilation
    rows, columns = padded.shape[-2] - reach, padded.shape[-1] - reach
    starts = [(i * dilation, j * dilation) for i in range(kernel) for j in range(kernel)]
    return [padded[..., i : i + rows : stride, j : j + columns : stride] for i, j in starts]


def _slabs(y: Tensor) -> Iterator[tuple[slice, slice]]:
    """Maps and channels of each slab of a result (M, C, ...).

    One slab where there is no cache to spare: kernels of a GPU and of a compiler fuse by themselves.
    """
    maps, channels = y.shape[:2]
    if y.is_cuda or torch.compiler.is_compiling():
        return iter([(slice(None), slice(None))])
    return pieces(maps, channels, max(SLAB_BYTES // (y.shape[2:].numel() * y.element_size()), 1))
