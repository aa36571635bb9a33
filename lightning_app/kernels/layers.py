"""Layers of any module by the faster kernels of this machine, whoever wrote the module."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lightning_app.kernels import depthwise, products


def fast_layers(x: Tensor) -> AbstractContextManager[object]:
    """A context in which convolutions and linear layers take a faster way, where there is one for inputs like ``x``."""
    return FastLayers() if depthwise.trains_here(x) or products.runs_here(x) else nullcontext()


class FastLayers(TorchFunctionMode):
    """Inside a ``with``, ``torch.conv2d`` and ``F.linear`` are those below, whichever module calls them."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d:
            func = conv2d
        elif func is F.linear:
            func = linear
        return func(*args, **(kwargs or {}))


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | depthwise.Pair = 1,
    padding: int | str | depthwise.Pair = 0,
    dilation: int | depthwise.Pair = 1,
    groups: int = 1,
) -> Tensor:
    """``F.conv2d``.

    Shape: (B, C, H, W), weight (C', C / groups, k, l), bias (C') -> (B, C', H', W').
    """
    pointwise = weight.shape[2:] == (1, 1) and groups == 1 and padding in (0, (0, 0)) and input.dim() == 4
    if pointwise and products.runs_here(input):
        return products.conv1x1(input if stride in (1, (1, 1)) else _every(input, stride), weight, bias)
    return depthwise.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _every(x: Tensor, stride: int | depthwise.Pair) -> Tensor:
    """The pixels that a stride keeps, laid out as ``x`` is."""
    down, across = (stride, stride) if isinstance(stride, int) else stride
    last = x.is_contiguous(memory_format=torch.channels_last)
    return x[..., ::down, ::across].contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``.

    Shape: (..., K), weight (M, K), bias (M) -> (..., M).
    """
    if input.dim() != 2 or not products.runs_here(input):
        return F.linear(input, weight, bias)
    return products.linear(input[None], weight, bias)[0]
