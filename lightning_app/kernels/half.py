"""Half precision where the machine is built for it."""

import torch
from torch import Tensor, nn


def has_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 are faster there: a CPU with AVX-512 BF16 or AMX, a GPU with such units."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = getattr(torch.cpu, "get_capabilities", dict)  # old releases tell nothing
    able: dict[str, object] = known() if device.type == "cpu" else {}
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


class InFloat32(nn.Module):
    """A layer that computes in float32 under autocast."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = self.layer(x.float())
        return y
