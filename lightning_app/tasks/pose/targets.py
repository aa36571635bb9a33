"""Target maps of keypoints. Reference: mmpose's codecs (gaussian_heatmap.py, offset_heatmap.py)."""

import torch
from torch import Tensor

Size = tuple[int, int]
REACH = 3  # sigmas, to either side of the peak


def rounded(points: Tensor, visible: Tensor, size: Size, sigma: float) -> tuple[Tensor, Tensor]:
    """A Gaussian round the nearest pixel m = trunc(p + 0.5): exp(-|q - m|^2 / 2 sigma^2), 0 beyond 3 sigma.

    Shape: points (..., K, 2) as x, y in map pixels, visible (..., K) -> maps (..., K, h, w), weights (..., K).
    """
    return _windowed(points, visible, size, sigma, fraction=False)


def shifted(points: Tensor, visible: Tensor, size: Size, sigma: float) -> tuple[Tensor, Tensor]:
    """A Gaussian round the point p itself, cut off beyond 3 sigma of its nearest pixel: UDP's.

    Shape: as ``rounded``. Reference: arXiv:1911.07524.
    """
    return _windowed(points, visible, size, sigma, fraction=True)


def unbiased(points: Tensor, visible: Tensor, size: Size, sigma: float) -> tuple[Tensor, Tensor]:
    """A Gaussian round the point p itself, over the whole map: DARK's.

    Shape: as ``rounded``. Reference: arXiv:1910.06278.
    """
    reach = REACH * sigma
    inside = _touches(points - reach, points + reach + 1, size)
    rows, columns = (_gaussian(q - p, sigma) for q, p in _along_axes(points, size))
    return _drawn(columns, rows, visible, inside)


def discs_and_offsets(points: Tensor, visible: Tensor, size: Size, radius: float) -> tuple[Tensor, Tensor]:
    """Three maps a point: disc [|p - q| <= r], x offset (p_x - q_x) / r and y offset (p_y - q_y) / r.

    Shape: points (..., K, 2), visible (..., K) -> maps (..., 3 K, h, w), weights (..., K), which are ``visible``.

    Reference: arXiv:1911.07524.
    """
    rows, columns = ((p - q) / radius for q, p in _along_axes(points, size))
    y, x = rows[..., :, None], columns[..., None, :]
    disc = (x * x + y * y <= 1).to(points.dtype)
    maps = torch.stack([disc, x.expand_as(disc), y.expand_as(disc)], dim=-3)
    maps = torch.where((visible >= 0.5)[..., None, None, None], maps, 0)
    return maps.flatten(-4, -3), visible.to(points.dtype)


def _windowed(points: Tensor, visible: Tensor, size: Size, sigma: float, *, fraction: bool) -> tuple[Tensor, Tensor]:
    reach = REACH * sigma
    centre = (points + 0.5).trunc()
    first, end = (centre - reach).trunc(), (centre + reach + 1).trunc()
    peak = first + (2 * reach + 1) // 2
    if fraction:
        peak = peak + (points - centre)
    parts = []
    for axis, (q, _) in zip((1, 0), _along_axes(points, size), strict=True):
        within = (q >= first[..., axis, None]) & (q < end[..., axis, None])
        parts.append(torch.where(within, _gaussian(q - peak[..., axis, None], sigma), 0))
    rows, columns = parts
    return _drawn(columns, rows, visible, _touches(first, end, size))


def _along_axes(points: Tensor, size: Size) -> list[tuple[Tensor, Tensor]]:
    """Pixel numbers (h) and the points' y (..., K, 1), then pixel numbers (w) and their x."""
    numbers = [torch.arange(side, dtype=points.dtype, device=points.device) for side in size]
    return [(numbers[0], points[..., 1, None]), (numbers[1], points[..., 0, None])]


def _gaussian(distance: Tensor, sigma: float) -> Tensor:
    return torch.exp(-distance.square() / (2 * sigma**2))


def _touches(first: Tensor, end: Tensor, size: Size) -> Tensor:
    """Whether the square from ``first`` to ``end`` meets the map, by the reference's count."""
    limits = first.new_tensor([size[1], size[0]])
    return ((first < limits) & (end >= 0)).all(-1)


def _drawn(columns: Tensor, rows: Tensor, visible: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    shown = (visible >= 0.5) & inside
    maps = torch.where(shown[..., None, None], rows[..., :, None] * columns[..., None, :], 0)
    return maps, torch.where(inside | (visible < 0.5), visible, 0).to(rows.dtype)
