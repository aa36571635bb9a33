"""Depthwise convolutions that train on a CPU: the same convolution, with a backward pass of its own.

PyTorch's forward pass is near what memory allows; of its backward pass, some shapes take loops that are up to a hundred
times slower (oneDNN 3.x, the same with AVX2 and AVX-512; ``benchmarks/depthwise.py`` measures them):

=================================  =======================  ================================
gradient, slow where               here                     why it is fast
=================================  =======================  ================================
input, dilated                     a convolution            forward kernels dilate
input, strided, bf16               in fp32                  oneDNN's bf16 kernel is missing
weight, wider than 3 columns       strips of 3 columns      kernels of 3 columns exist
weight, dilated                    d^2 undilated maps       the same
=================================  =======================  ================================

In bf16, channels last, the weight gradient of a dilated convolution in groups is not slow but wrong: memory that nobody
wrote (torch 2.14). Weight gradients that are made here are made in fp32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.kernels.cutting import to_cells
from lightning_app.kernels.switch import is_fast, is_traced

Pair = tuple[int, int]
STRIP = 3  # columns of a kernel up to which oneDNN's weight gradient is fast


def trains_here(x: Tensor) -> bool:
    """Whether a convolution of ``x`` may ask for gradients that this machine has a faster way to."""
    return (
        is_fast()
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and not is_traced()
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and bool(torch.backends.mkldnn.enabled)
    )


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | str | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    """``F.conv2d``; its backward pass is the faster one where there is one.

    Shape: (B, C, H, W), weight (C', C / groups, k, l), bias (C') -> (B, C', H', W').
    """
    if groups > 1 and input.dim() == 4 and not isinstance(padding, str) and trains_here(input):
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        if is_slow(weight, dtype, _pair(stride), _pair(dilation)):
            geometry = _pair(stride), _pair(padding), _pair(dilation), groups
            y: Tensor = _Convolution.apply(input.to(dtype), weight, bias, *geometry)
            return y
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def is_slow(weight: Tensor, dtype: torch.dtype, stride: Pair, dilation: Pair) -> bool:
    """Whether PyTorch's backward pass of a convolution in groups takes a slow loop, or a wrong one."""
    dilated, depthwise = dilation != (1, 1), weight.shape[1] == 1
    if dtype == torch.bfloat16:
        return dilated or (depthwise and (weight.shape[3] > STRIP or stride != (1, 1)))
    return dtype == torch.float32 and depthwise and (dilated or weight.shape[3] > STRIP)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
    ) -> Tensor:
        bias = None if bias is None else bias.to(x.dtype)
        return F.conv2d(x, weight.to(x.dtype), bias, stride, padding, dilation, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, *ctx.geometry = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, *_ = ctx.needs_input_grad
        return (
            input_gradient(grad, x, weight.to(x.dtype), *ctx.geometry) if of_x else None,
            weight_gradient(grad, x, weight, *ctx.geometry) if of_weight else None,
            grad.sum((0, 2, 3), dtype=weight.dtype) if of_bias else None,
            *[None] * 4,
        )


def input_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Tensor:
    """dL/dx(p) = sum_t w(t) dL/dy(p - d t): where nothing strides, itself a convolution, by the turned kernel."""
    geometry = stride, padding, dilation, groups
    # zeros on each side of dL/dy, as many as the kernel reaches beyond those of x
    around = (weight.shape[2] - 1) * dilation[0] - padding[0], (weight.shape[3] - 1) * dilation[1] - padding[1]
    if _is_depthwise(weight, groups) and stride == (1, 1) and min(around) >= 0:
        return F.conv2d(grad, weight.flip(2, 3), None, 1, around, dilation, groups)
    if x.dtype == torch.bfloat16 and stride != (1, 1):
        like = torch.empty_like(x, dtype=torch.float32)  # read for its shape alone
        return _gradients(grad.float(), like, weight.float(), *geometry, of_x=True).to(x.dtype)
    return _gradients(grad, x, weight, *geometry, of_x=True)


def weight_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Tensor:
    """dL/dw(t) = sum_p dL/dy(p) x(s p + d t), in fp32 at least where PyTorch's own is slow or wrong."""
    dilated, geometry = dilation != (1, 1), (stride, padding, dilation, groups)
    depthwise = _is_depthwise(weight, groups)
    if depthwise and not dilated and weight.shape[3] <= STRIP:
        return _gradients(grad, x, weight.to(x.dtype), *geometry, of_x=False).to(weight.dtype)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    grad, x, like = grad.to(dtype), x.to(dtype), weight.to(dtype)
    if not depthwise or (dilated and stride != (1, 1)):
        return _gradients(grad, x, like, *geometry, of_x=False).to(weight.dtype)
    below, right = (-size % d for size, d in zip(grad.shape[2:], dilation, strict=True))
    x = F.pad(x, (padding[1], padding[1] + right, padding[0], padding[0] + below))
    if dilated:
        x, grad = (to_cells(map_, dilation, across=True) for map_ in (x, F.pad(grad, (0, right, 0, below))))
    strips = []
    for first in range(0, weight.shape[3], STRIP):
        strip = like[..., first : first + STRIP]
        seen = x[..., first : first + (grad.shape[3] - 1) * stride[1] + strip.shape[3]]
        strips.append(_gradients(grad, seen, strip, stride, (0, 0), (1, 1), groups, of_x=False))
    return torch.cat(strips, dim=3).to(weight.dtype)


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int, *, of_x: bool
) -> Tensor:
    """PyTorch's gradient of x, or else of the weight."""
    mask = [of_x, not of_x, False]
    both = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, (0, 0), groups, mask
    )
    gradient: Tensor = both[0] if of_x else both[1]
    return gradient


def _is_depthwise(weight: Tensor, groups: int) -> bool:
    return weight.shape[:2] == (groups, 1)


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
