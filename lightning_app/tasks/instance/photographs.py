"""Photographs at the size that a network sees them, as published weights expect it."""

from collections.abc import Sequence

import torch
from torch import Tensor

BITS = 11  # of a resize's weights, in whole numbers


def seen_size(height: int, width: int, short: int, long: int) -> tuple[int, int]:
    """The largest size of the same shape whose sides are at most ``short`` and ``long``, rounded; none of them 0.

    Reference: mmcv 2.1 rescale_size.
    """
    scale = min(long / max(height, width), short / min(height, width))
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, between whole grey levels and without antialiasing, in the whole numbers that OpenCV computes with.

    Shape: (C, H, W) in 0..1 -> (C, *size) in 0..1; each value a multiple of 1/255.

    Reference: OpenCV's INTER_LINEAR of bytes.
    """
    if image.shape[-2:] == size:
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
    height, width = (-(-max(image.shape[side] for image in images) // multiple) * multiple for side in (-2, -1))
    batch = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    for place, image in enumerate(images):
        batch[place, :, : image.shape[1], : image.shape[2]] = image
    return batch


def _weights(old: int, new: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel of the new side its two neighbours on the old one, and the second's weight in 2^-11."""
    place = ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5).float()
    first = place.floor()
    weight = ((place - first) * (1 << BITS)).round().int()
    one, other = (neighbour.clamp(0, old - 1).long().to(device) for neighbour in (first, first + 1))
    return one, other, weight.to(device)
