"""Gaussian blur of maps as OpenCV's GaussianBlur(kernel, sigma=0) has it."""

from functools import cache
from math import ceil
from typing import Final, Literal

import torch
from torch import Tensor

from lightning_app.kernels.switch import is_traced

TABLE: Final = {  # OpenCV's own kernels up to 7 pixels
    1: (1.0,),
    3: (0.25, 0.5, 0.25),
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
}

Border = Literal["zeros", "mirror"]


def gaussian_blur(maps: Tensor, kernel: int, border: Border) -> Tensor:
    """T_h m T_w^T with the banded matrices T of the kernel; sigma = 0.3 ((k - 1) / 2 - 1) + 0.8.

    Two products of matrices take a fraction of the time of a convolution with a long kernel. Each map has its own, so
    that no rounding hangs on how many there are.

    Shape: maps (..., h, w) -> the same.

    Args:
        kernel: pixels along its side, odd.
        border: what lies outside: zeros, or the map mirrored at its outermost pixel.
    """
    height, width = maps.shape[-2:]
    many = maps.reshape(-1, height, width)
    down, across = (_matrix(side, kernel, border).to(maps) for side in (height, width))
    across = across.T.contiguous()  # MKL takes half the time so
    return (down.expand(len(many), -1, -1) @ (many @ across.expand(len(many), -1, -1))).view(maps.shape)


def blurred_around(maps: Tensor, points: Tensor, kernel: int, reach: int) -> Tensor:
    """What ``gaussian_blur`` with zeros outside has up to ``reach`` pixels beside whole points; the border's beyond it.

    Only what these few values take of the maps is read.

    Shape: maps (..., h, w), points (..., 2) as x, y -> (..., 2 reach + 1, 2 reach + 1), rows first.
    """
    height, width = maps.shape[-2:]
    across, left = _shares(points[..., 0].flatten().long(), width, kernel, reach)
    down, top = _shares(points[..., 1].flatten().long(), height, kernel, reach)
    windows = maps.reshape(-1, height, width).unfold(1, down.shape[-1], 1).unfold(2, across.shape[-1], 1)
    taken = windows[torch.arange(windows.shape[0], device=maps.device), top, left]
    return torch.unflatten(down.to(maps) @ taken @ across.to(maps).mT, 0, points.shape[:-1])


def _shares(places: Tensor, side: int, kernel: int, reach: int) -> tuple[Tensor, Tensor]:
    """What the pixels beside each place take of a window of pixels, and the window's first.

    Shape: (N,) -> (N, 2 reach + 1, window), (N,).
    """
    # whole rows of a cache line, or the products' rounding hangs on where a map lies and so on how many there are
    window = min(ceil((kernel + 2 * reach) / 8) * 8, side)
    first = (places - reach - kernel // 2).clamp(0, side - window)
    near = (places[:, None] + torch.arange(-reach, reach + 1, device=places.device)).clamp(0, side - 1)
    matrix = _matrix(side, kernel, "zeros").to(places.device)
    return matrix.unfold(1, window, 1)[near, first[:, None]], first


def _matrix(side: int, kernel: int, border: Border) -> Tensor:
    """(side, side): what each pixel takes of each pixel; made once, but for a graph, whose tensors are none."""
    return (_new_matrix if is_traced() else _kept_matrix)(side, kernel, border)


@torch.inference_mode(False)  # an inference tensor would be none that others may differentiate through
def _new_matrix(side: int, kernel: int, border: Border) -> Tensor:
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


_kept_matrix = cache(_new_matrix)


def weights(kernel: int) -> Tensor:
    """The kernel along one axis, (kernel,) in float64, of sum 1."""
    if kernel in TABLE:
        return torch.tensor(TABLE[kernel], dtype=torch.float64)
    sigma = 0.3 * ((kernel - 1) / 2 - 1) + 0.8
    distance = torch.arange(kernel, dtype=torch.float64) - (kernel - 1) / 2
    bell = torch.exp(-distance.square() / (2 * sigma**2))
    return bell / bell.sum()
