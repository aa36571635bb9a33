"""Photographs at the size that a network sees them, as published weights expect it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.kernels.switch import is_traced

BITS = 11  # of a resize's weights, in whole numbers


def seen_size(height: int, width: int, short: int, long: int) -> tuple[int, int]:
    """The largest size of the same shape whose sides are at most ``short`` and ``long``, rounded; none of them 0.

    Reference: mmcv 2.1 rescale_size.
    """
    if is_traced():
        return _recorded_size(height, width, short, long)
    scale = min(long / max(height, width), short / min(height, width))
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def _recorded_size(height: int, width: int, short: int, long: int) -> tuple[int, int]:
    """The same as operators of a graph, which compute it for each photograph that comes."""
    sides = torch.stack([torch.scalar_tensor(side, dtype=torch.float64) for side in (height, width)])
    scale = torch.minimum(long / sides.max(), short / sides.min())
    seen_height, seen_width = (sides * scale + 0.5).long().tolist()
    for side in (seen_height, seen_width):
        torch._check(side >= 1)
        torch._check(side <= long)
    return seen_height, seen_width


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, between whole grey levels and without antialiasing, in the whole numbers that OpenCV computes with.

    Shape: (C, H, W) in 0..1 -> (C, *size) in 0..1; each value a multiple of 1/255.

    Reference: OpenCV's INTER_LINEAR of bytes.
    """
    if not is_traced() and image.shape[-2:] == size:  # what is recorded is of every size
        return image
    levels = (image * 255).round().to(torch.int32)
    (top, bottom, down), (left, right, across) = (
        _weights(old, new, image.device) for old, new in zip(image.shape[-2:], size, strict=True)
    )
    one = 1 << BITS
    rows = levels[..., left] * (one - across) + levels[..., right] * across  # (C, H, new width)
    above, below = rows[:, top] >> 4, rows[:, bottom] >> 4
    down = down[:, None]
    mixed = ((above * (one - down)) >> 16) + ((below * down) >> 16)
    return ((mixed + 2) >> 2).to(image.dtype) / 255


def pad(images: Sequence[Tensor], multiple: int) -> Tensor:
    """One batch, with zeros at the right and the bottom up to a size that ``multiple`` divides.

    Shape: (C, h_i, w_i) each -> (B, C, H, W).
    """
    largest = (max(image.shape[side] for image in images) for side in (-2, -1))
    height, width = ((side + multiple - 1) // multiple * multiple for side in largest)
    return torch.stack([F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in images])


def _weights(old: int, new: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel of the new side its two neighbours on the old one, and the second's weight in 2^-11."""
    step = torch.scalar_tensor(old, dtype=torch.float64) / torch.scalar_tensor(new, dtype=torch.float64)
    place = ((torch.arange(new, dtype=torch.float64) + 0.5) * step - 0.5).float()
    first = place.floor()
    weight = ((place - first) * (1 << BITS)).round().int()
    one, other = (neighbour.clamp(0, old - 1).long().to(device) for neighbour in (first, first + 1))
    return one, other, weight.to(device)
