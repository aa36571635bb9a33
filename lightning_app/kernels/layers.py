"""Layers of any module by the faster kernels of this machine, whoever wrote the module."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lightning_app.kernels import depthwise, products

NARROW: Final = 64  # channels of a layer below which oneDNN is no faster
WORTH: Final = 4_000_000  # weights of a network's pointwise layers from which on they gain what it costs to catch calls


def is_wide(network: nn.Module) -> bool:
    """Whether the pointwise layers of a network are large enough for ``fast_layers`` to pay where it predicts."""
    layers = (layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    return sum(weight.numel() for weight in layers if _is_pointwise(weight)) >= WORTH


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
    plain = groups == 1 and padding in (0, (0, 0)) and input.dim() == 4
    if plain and _is_pointwise(weight) and products.runs_here(input):
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
    if not _is_pointwise(weight) or not products.runs_here(input):
        return F.linear(input, weight, bias)
    rows = products.linear(input.reshape(1, -1, weight.shape[1]), weight, bias)
    return rows.view(*input.shape[:-1], weight.shape[0])


def _is_pointwise(weight: Tensor) -> bool:
    """Weights of one pixel, and of enough channels."""
    return weight.shape[2:] in ((), (1, 1)) and min(weight.shape[:2]) >= NARROW
