"""Matrix products, by the faster of the two libraries that PyTorch carries on a CPU.

``@`` takes MKL, which takes a generic path on processors that are not Intel's; with AVX-512 oneDNN's fp32 kernels then
run at two to three times its speed, at the same precision. On Intel's own processors it is at most as fast.
"""

import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.kernels.switch import is_fast, is_traced

BUILT = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]


def _is_of_intel() -> bool:
    """Whether MKL has kernels of its own for this processor."""
    told = Path("/proc/cpuinfo")
    if not told.is_file():
        return "GenuineIntel" in platform.processor()
    with told.open() as file:
        return "GenuineIntel" in file.readline() + file.readline()


FASTER = BUILT and torch.backends.cpu.get_cpu_capability() == "AVX512" and not _is_of_intel()
NARROW = 8  # rows or columns of the result below which both libraries run at the speed of memory
WORTH = 2**21  # multiply-adds of one matrix product from which on oneDNN's 10 us of preparation pay


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``.

    Shape: (B, M, K) or (M, K), (B, K, N) -> (B, M, N).
    """
    return _fast(a, b) if by_onednn(a, b) else a @ b


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ weight.T + bias``.

    Shape: x (B, N, K), weight (M, K), bias (M) -> (B, N, M).
    """
    weights = weight.T.expand(x.shape[0], -1, -1)
    if not by_onednn(x, weights):
        return F.linear(x, weight, bias)
    y = _fast(x, weights)
    return y if bias is None else y.add_(bias)


def baddbmm(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``x + a @ b``.

    Shape: x (B, M, N), a (B, M, K), b (B, K, N) -> (B, M, N).
    """
    if by_onednn(a, b):
        return _fast(a, b).add_(x)
    if x.is_contiguous() or x.is_cuda:
        return torch.baddbmm(x, a, b)
    # Into columns, bf16 on a CPU takes a loop that is two thousand times slower.
    return torch.baddbmm(x.mT, b.mT, a.mT).mT


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.conv2d`` with kernels of one pixel.

    As a product where PyTorch is slower with few images: on one thread, where it takes MKL, and on several for maps
    that are not channels_last.

    Shape: x (B, K, H, W), weight (M, K, 1, 1), bias (M) -> (B, M, H, W).
    """
    if not runs_here(x) or len(x) >= 16:
        return F.conv2d(x, weight, bias)
    matrix = weight.flatten(1)
    if x.is_contiguous() and by_onednn(matrix, x.flatten(2)):
        y = _fast(matrix, x.flatten(2))
        return (y if bias is None else y.add_(bias.unsqueeze(1))).view(len(x), -1, *x.shape[2:])
    if torch.get_num_threads() == 1 and x.is_contiguous(memory_format=torch.channels_last):
        positions = x.permute(0, 2, 3, 1)
        y = linear(positions.reshape(1, -1, x.shape[1]), matrix, bias)
        return y.view(*positions.shape[:3], -1).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias)


def products(a: Tensor, b: Tensor) -> Tensor:
    """The same inside a function that has a backward pass of its own: (B, M, K), (B, K, N) -> (B, M, N)."""
    return _multiply(a, b) if by_onednn(a, b) else a @ b


def _fast(a: Tensor, b: Tensor) -> Tensor:
    y: Tensor = _Matmul.apply(a.expand(b.shape[0], -1, -1), b)
    return y


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    each = [
        torch.ops.mkldnn._linear_pointwise(_dense(left), _dense(right).T, None, "none", [], "")
        for left, right in zip(a, b, strict=True)
    ]
    return each[0].unsqueeze_(0) if len(each) == 1 else torch.stack(each)  # one product needs no second memory


def _dense(matrix: Tensor) -> Tensor:
    """The matrix without gaps between rows or columns: for others oneDNN may take a loop a thousand times slower."""
    return matrix if matrix.is_contiguous() or matrix.T.is_contiguous() else matrix.contiguous()


def _flop(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(x) * weight[0]


FLOPS: dict[Any, Any] = {torch.ops.mkldnn._linear_pointwise: _flop} if BUILT else {}  # for torch's counter


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return _multiply(a, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        of_a, of_b = ctx.needs_input_grad
        return matmul(grad, b.mT) if of_a else None, matmul(a.mT, grad) if of_b else None


def by_onednn(a: Tensor, b: Tensor) -> bool:
    """Whether oneDNN multiplies these matrices faster, and nothing traces or recasts them."""
    return (
        runs_here(a)
        and runs_here(b)
        and min(a.shape[-2], b.shape[-1]) >= NARROW
        and a.shape[-2] * a.shape[-1] * b.shape[-1] >= WORTH
    )


def runs_here(x: Tensor) -> bool:
    """Whether oneDNN may be faster, whatever the sizes: a graph that is being compiled or exported would note them."""
    return (
        FASTER
        and is_fast()
        and not is_traced()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
    )
