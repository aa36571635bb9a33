"""Half precision where the machine is built for it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

T = TypeVar("T")


def has_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 are faster there: a CPU with AVX-512 BF16 or AMX, a GPU with such units."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = getattr(torch.cpu, "get_capabilities", dict)  # old releases tell nothing
    able: dict[str, object] = known() if device.type == "cpu" else {}
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def evaluated_in_float32(method: Callable[..., T]) -> Callable[..., T]:
    """A module's method that, but in training, computes in float32 under bf16 autocast: for what is ranked afterwards.

    bf16 keeps 8 bits. Where one of many boxes is chosen by scores that are nearly equal, that is another box.
    """

    @wraps(method)
    def careful(module: nn.Module, *inputs: Any) -> T:
        device = next(module.parameters()).device.type
        if module.training or not _casts_to_bfloat16(device):
            return method(module, *inputs)
        with torch.autocast(device, enabled=False):
            return method(module, *map(_widened, inputs))

    return careful


def _casts_to_bfloat16(device: str) -> bool:
    """Whether autocast is on there, and to bf16."""
    cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)  # shapes alone have none
    return cast and torch.get_autocast_dtype(device) == torch.bfloat16


def _widened(x: Any) -> Any:
    """Tensors of bf16, also in a list or tuple, in float32."""
    if isinstance(x, Tensor):
        return x.float() if x.dtype == torch.bfloat16 else x
    return type(x)(map(_widened, x)) if isinstance(x, list | tuple) else x


class InFloat32(nn.Module):
    """A layer that computes in float32 under autocast."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = self.layer(x.float())
        return y


def ends_in_float32(images: Tensor, stride: int, last: nn.Module | None) -> AbstractContextManager[object]:
    """A context in which both ends of a network under bf16 autocast compute in float32: ``EndsInFloat32``.

    Args:
        stride: pixels of the images, (B, C, H, W), per pixel of the coarsest of the first maps that are in float32.
        last: the convolution at the other end.
    """
    device = images.device.type
    if not _casts_to_bfloat16(device):
        return nullcontext()
    return EndsInFloat32(device, images.shape[-1] / stride, getattr(last, "weight", None))


class EndsInFloat32(TorchFunctionMode):
    """Inside a ``with``, autocast begins behind the first convolution that gives maps narrower than ``width``.

    The convolution with the weights ``last`` is in float32 again.
    """

    def __init__(self, device: str, width: float, last: Tensor | None) -> None:
        super().__init__()
        self.device, self.width, self.last = device, width, last

    def __enter__(self) -> Self:
        torch.set_autocast_enabled(self.device, False)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        torch.set_autocast_enabled(self.device, True)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return (self._conv2d if func is torch.conv2d else func)(*args, **(kwargs or {}))

    def _conv2d(self, input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **options: Any) -> Tensor:
        if weight is self.last:
            with torch.autocast(self.device, enabled=False):
                return torch.conv2d(_widened(input), weight, bias, *args, **options)
        found = torch.conv2d(input, weight, bias, *args, **options)
        if found.shape[-1] < self.width:
            torch.set_autocast_enabled(self.device, True)
        return found
