"""Gaussian blur of maps as OpenCV's GaussianBlur(kernel, sigma=0) has it."""

from typing import Final, Literal

import torch
from torch import Tensor

TABLE: Final = {  # OpenCV's own kernels up to 7 pixels
    1: (1.0,),
    3: (0.25, 0.5, 0.25),
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
}

Border = Literal["zeros", "mirror"]


def gaussian_blur(maps: Tensor, kernel: int, border: Border) -> Tensor:
    """T_h m T_w^T with the banded matrices T of the kernel; sigma = 0.3 ((k - 1) / 2 - 1) + 0.8.

    Two products of matrices take a fraction of the time of a convolution with a long kernel.

    Shape: maps (..., h, w) -> the same.

    Args:
        kernel: pixels along its side, odd.
        border: what lies outside: zeros, or the map mirrored at its outermost pixel.
    """
    height, width = maps.shape[-2:]
    down, across = (_matrix(side, kernel, border).to(maps) for side in (height, width))
    return down @ (maps @ across.T)


def _matrix(side: int, kernel: int, border: Border) -> Tensor:
    """(side, side): what each pixel takes of each pixel."""
    reach = (kernel - 1) // 2
    pixels = torch.arange(side)[:, None].expand(side, kernel)
    taken = pixels + torch.arange(-reach, reach + 1)
    share = weights(kernel).expand(side, kernel)
    if border == "zeros":
        share = share * ((taken >= 0) & (taken < side))
        taken = taken.clamp(0, side - 1)
    elif side > 1:
        period = 2 * (side - 1)
        taken = taken.remainder(period)
        taken = torch.minimum(taken, period - taken)
    else:
        taken = torch.zeros_like(taken)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    return matrix.index_put_((pixels, taken), share, accumulate=True)


def weights(kernel: int) -> Tensor:
    """The kernel along one axis, (kernel,) in float64, of sum 1."""
    if kernel in TABLE:
        return torch.tensor(TABLE[kernel], dtype=torch.float64)
    sigma = 0.3 * ((kernel - 1) / 2 - 1) + 0.8
    distance = torch.arange(kernel, dtype=torch.float64) - (kernel - 1) / 2
    bell = torch.exp(-distance.square() / (2 * sigma**2))
    return bell / bell.sum()
