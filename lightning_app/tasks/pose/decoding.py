"""From maps to points between their pixels. Reference: mmpose's codecs (refinement.py, post_processing.py)."""

import torch
from torch import Tensor

from lightning_app.tasks.pose.blur import gaussian_blur

FLOOR = 1e-10  # in front of DARK's logarithm
UDP_RANGE = (1e-3, 50.0)  # in front of UDP's
UDP_RIDGE = float(torch.finfo(torch.float32).eps)  # on the diagonal of UDP's Hessian


def maxima(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel of each map's maximum, the first of equal ones in row order, (-1, -1) where nothing is above 0; and it.

    Shape: maps (..., h, w) -> x, y (..., 2) of the maps' dtype, scores (...).
    """
    best = maps.amax(-1)  # of each row: the vectorised reduction finds it many times faster than argmax does
    y = best.argmax(-1, keepdim=True)
    row = maps.gather(-2, y[..., None].expand(*y.shape, maps.shape[-1])).squeeze(-2)
    x = row.argmax(-1, keepdim=True)
    scores = row.gather(-1, x)
    points = torch.cat([x, y], dim=-1).to(maps.dtype)
    return torch.where(scores > 0, points, -1), scores.squeeze(-1)


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
    blurred = _rescaled(maps, kernel)
    near = [each.clamp(min=FLOOR).log() for each in _around(blurred, points, offsets + corners)]
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
    blurred = _rescaled(maps, kernel)
    near = [each.clamp(*UDP_RANGE).log() for each in _around(blurred, points, offsets)]
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
    points, scores = maxima(gaussian_blur(disc, kernel, border="mirror"))
    (along_x,), (along_y,) = _around(x, points, ((0, 0),)), _around(y, points, ((0, 0),))
    return points + radius * torch.stack([along_x, along_y], dim=-1), scores


def _rescaled(maps: Tensor, kernel: int) -> Tensor:
    """The blurred maps, each as high as it was before."""
    blurred = gaussian_blur(maps, kernel, border="zeros")
    highest = blurred.amax((-2, -1), keepdim=True)
    return blurred * torch.where(highest == 0, 1, maps.amax((-2, -1), keepdim=True) / highest)


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
