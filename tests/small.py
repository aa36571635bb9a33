"""Heads and blocks small enough for every test, and maps for them."""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.heads.base import ContextHead

WIDTHS = (8, 12, 16, 24)
SIZES = ((27, 35), (14, 18), (7, 9), (7, 9))  # odd, the last two levels at one stride
CLASSES = 3
SMALL = {  # where a head or block has the argument
    "channels": 32,
    "block_channels": 32,
    "key_channels": 16,
    "coarse_channels": 16,
    "fpn_channels": 16,
    "bases": 8,
    "codes": 4,
    "compressed": 16,
    "mask_size": (13, 13),
    "widths": (8, 12, 16, 24),
    "heads": 4,
    "feedforward": 48,
    "inner_channels": 16,
    "slots": 8,
    "expansion": 2,
    "encoder_feedforward": 48,
    "queries": 6,
    "point_channels": 32,
}


def build(cls: type[nn.Module], *positional: Any, seed: int = 0, **arguments: Any) -> Any:
    """A small module, in eval mode, in which nothing is zero that training would move."""
    torch.manual_seed(seed)
    known = signature(cls).parameters
    module = cls(*positional, **{key: value for key, value in SMALL.items() if key in known} | arguments).eval()
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.5)
    return module


def build_head(cls: type[nn.Module], widths: Sequence[int] = WIDTHS, **arguments: Any) -> ContextHead:
    head = build(cls, widths, CLASSES, **arguments)
    assert isinstance(head, ContextHead)
    return head


def levels(batch: int = 2, widths: Sequence[int] = WIDTHS, sizes: Sequence[tuple[int, int]] = SIZES) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(batch, width, *size) for width, size in zip(widths, sizes, strict=True)]


def image(batch: int = 2, size: tuple[int, int] = (11, 13)) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, SMALL["channels"], *size)
