"""Half precision where the machine is built for it."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

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
        cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)  # shapes alone have none
        if module.training or not cast or torch.get_autocast_dtype(device) != torch.bfloat16:
            return method(module, *inputs)
        with torch.autocast(device, enabled=False):
            return method(module, *map(_widened, inputs))

    return careful


def _widened(x: Any) -> Any:
    """Tensors of bf16, also in a list, in float32."""
    if isinstance(x, Tensor):
        return x.float() if x.dtype == torch.bfloat16 else x
    return [_widened(each) for each in x] if isinstance(x, Sequence) else x


class InFloat32(nn.Module):
    """A layer that computes in float32 under autocast."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = self.layer(x.float())
        return y
