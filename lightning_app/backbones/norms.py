"""Norms of a backbone's levels, and of all that stands in it."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_app.util.errors import check_choice


class LevelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map (B, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


def level_norms(channels: Sequence[int], changes: Mapping[str, Any]) -> nn.ModuleList | None:
    """A norm for each level, where the changes ask for them."""
    kind = changes.get("level_norm")
    if kind is None:
        return None
    check_choice("level_norm", kind, ("layer", "group"))
    return nn.ModuleList(LevelNorm(width) if kind == "layer" else nn.GroupNorm(1, width) for width in channels)


def set_norm_eps(backbone: nn.Module, changes: Mapping[str, Any]) -> None:
    """Give every layer norm the eps that the changes ask for."""
    if (eps := changes.get("norm_eps")) is not None:
        for module in backbone.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = float(eps)
