"""From maps to points between their pixels. Reference: mmpose's codecs (refinement.py, post_processing.py)."""

import math

import torch
from torch import Tensor

from lightning_app.kernels.maxima import argmax
from lightning_app.kernels.switch import is_traced
from lightning_app.tasks.pose.blur import blurred_around, gaussian_blur

FLOOR = 1e-10  # in front of DARK's logarithm
UDP_RANGE = (1e-3, 50.0)  # in front of UDP's
UDP_RIDGE = float(torch.finfo(torch.float32).eps)  # on the diagonal of UDP's Hessian
PIECE = 32  # maps: so many fit into a cache


def maxima(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel of each map's maximum, the first of equal ones in row order, (-1, -1) where nothing is above 0; and it.

    Shape: maps (..., h, w) -> x, y (..., 2) of the maps' dtype, scores (...).
    """
    best, scores = _highest(maps)
    return _points(best, scores, maps.shape[-1]), scores


def _highest(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Where the maximum of each map stands, in row order, and it: (..., h, w) -> (...), (...)."""
    flat = maps.flatten(-2)
    best = argmax(flat)
    return best, flat.gather(-1, best[..., None]).squeeze(-1)


def _points(best: Tensor, scores: Tensor, width: int) -> Tensor:
    points = torch.stack([best % width, best // width], dim=-1).to(scores.dtype)
    return torch.where(scores[..., None] > 0, points, -1)


def quarter_step(maps: Tensor) -> tuple[Tensor, Tensor]:
    """p = m + 0.25 sign(right - left, below - above) round the maximum m, along an axis only inside its borders.

    Shape: maps (..., K, h, w) -> points (..., K, 2) as x, y in map pixels, scores (..., K).
    """
    points, scores = maxima(maps)
    height, width = maps.shape[-2:]
    x, y = points.unbind(-1)
    right, left, below, above = _around(maps, points, ((1, 0), (-1, 0), (0, 1), (0, -1)))
    along_x = (x > 1) & (x < width - 1) & (y > 0) & (y < height)
    along_y = (y > 1) & (y < height - 1) & (x > 0) & (x < width)
    step = torch.stack([(right - left).sign() * along_x, (below - above).sign() * along_y], dim=-1)
    return points + 0.25 * step, scores


def newton_step(maps: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """p = m - H^-1 g of the blurred map's logarithm, differences over +-1 and +-2, two pixels inside the borders.

    Shape: as ``quarter_step``. Reference: arXiv:1910.06278 (DARK).
    """
    points, scores = maxima(maps)
    height, width = maps.shape[-2:]
    x, y = points.unbind(-1)
    inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    offsets = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (2, 0), (-2, 0), (0, 2), (0, -2))
    corners = ((1, 1), (1, -1), (-1, 1), (-1, -1))
    near = _logarithms(maps, points, inside, kernel, 2, (FLOOR, math.inf), offsets + corners)
    middle, right, left, below, above, right2, left2, below2, above2, br, ar, bl, al = near
    dx, dy = 0.5 * (right - left), 0.5 * (below - above)
    dxx, dyy = 0.25 * (right2 - 2 * middle + left2), 0.25 * (below2 - 2 * middle + above2)
    dxy = 0.25 * (br - ar - bl + al)
    return points - _solve(dx, dy, dxx, dyy, dxy, inside), scores


def newton_step_udp(maps: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """p = m - (H + eps I)^-1 g of the blurred map's logarithm, differences over +-1, at borders too.

    Shape: as ``quarter_step``. Reference: arXiv:1911.07524 (UDP).
    """
    points, scores = maxima(maps)
    offsets = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1))
    near = _logarithms(maps, points, scores > 0, kernel, 1, UDP_RANGE, offsets)
    middle, right, left, below, above, diagonal, opposite = near
    dx, dy = 0.5 * (right - left), 0.5 * (below - above)
    dxx, dyy = right - 2 * middle + left, below - 2 * middle + above
    dxy = 0.5 * (diagonal - right - below + 2 * middle - left - above + opposite)
    return points - _solve(dx, dy, dxx + UDP_RIDGE, dyy + UDP_RIDGE, dxy, scores > 0), scores


def disc_and_offset(maps: Tensor, kernel: int, radius: float) -> tuple[Tensor, Tensor]:
    """p = m + r (offset maps at m), m the maximum of the blurred disc, whose height is the score.

    Shape: maps (..., 3 K, h, w) -> points (..., K, 2), scores (..., K). Reference: arXiv:1911.07524.
    """
    disc, x, y = torch.unflatten(maps, -3, (-1, 3)).unbind(-3)
    points, scores = _blurred_maxima(disc, kernel)
    (along_x,), (along_y,) = _around(x, points, ((0, 0),)), _around(y, points, ((0, 0),))
    return points + radius * torch.stack([along_x, along_y], dim=-1), scores


def _blurred_maxima(maps: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """``maxima`` of the blurred maps, of which on a CPU only as many are made at a time as its cache holds."""
    many = maps.flatten(0, -3)
    pieces = [many] if is_traced() or maps.device.type != "cpu" else torch.split(many, PIECE)
    found = [_highest(gaussian_blur(piece, kernel, border="mirror")) for piece in pieces]
    best, scores = (torch.cat(each).view(maps.shape[:-2]) for each in zip(*found, strict=True))
    return _points(best, scores, maps.shape[-1]), scores


def _logarithms(
    maps: Tensor,
    points: Tensor,
    where: Tensor,
    kernel: int,
    reach: int,
    limits: tuple[float, float],
    offsets: tuple[tuple[int, int], ...],
) -> tuple[Tensor, ...]:
    """log(clamp(s b, limits)) at each offset (x, y) from whole points, b the blurred map, s = max m / max b.

    The factor s makes the blurred map as high as the map was. A step takes differences of the logarithms alone, so s
    falls out where nothing is clamped, and 1 stands for it: the whole map is blurred only where something may be.

    Shape: maps (..., h, w), points (..., 2), where (...), False where nobody looks -> for each offset (...).
    """
    near = blurred_around(maps, points, kernel, reach)
    highest = near.amax((-2, -1), keepdim=True)
    # 1 <= s <= max m / b, since weights are positive and of sum 1
    most = near * (_around(maps, points, ((0, 0),))[0][..., None, None] / highest)
    sure = (near >= limits[0]).all(-1).all(-1) & (most <= limits[1]).all(-1).all(-1)
    unsure = where & ~sure
    if is_traced():
        near = near * torch.where(unsure, _factor(maps, kernel), 1)[..., None, None]
    elif unsure.any():
        near[unsure] = near[unsure] * _factor(maps[unsure], kernel)[..., None, None]
    logs = near.clamp(*limits).log()
    return tuple(logs[..., y + reach, x + reach] for x, y in offsets)


def _factor(maps: Tensor, kernel: int) -> Tensor:
    """Height of each map over that of the blurred one."""
    highest = gaussian_blur(maps, kernel, border="zeros").amax((-2, -1))
    return torch.where(highest == 0, 1, maps.amax((-2, -1)) / highest)


def _around(maps: Tensor, points: Tensor, offsets: tuple[tuple[int, int], ...]) -> tuple[Tensor, ...]:
    """Values beside whole points, those of the border where one lies outside: for each offset (x, y) a (..., K)."""
    height, width = maps.shape[-2:]
    steps = torch.tensor(offsets, device=maps.device)
    at = points.long()[..., None, :] + steps
    flat = at[..., 1].clamp(0, height - 1) * width + at[..., 0].clamp(0, width - 1)
    return maps.flatten(-2).gather(-1, flat).unbind(-1)


def _solve(dx: Tensor, dy: Tensor, dxx: Tensor, dyy: Tensor, dxy: Tensor, where: Tensor) -> Tensor:
    """H^-1 g, 0 where that is not asked for or H has no inverse."""
    determinant = dxx * dyy - dxy * dxy
    taken = where & (determinant != 0)
    step = torch.stack([dyy * dx - dxy * dy, dxx * dy - dxy * dx], dim=-1)
    return torch.where(taken[..., None], step / torch.where(taken, determinant, 1)[..., None], 0)
