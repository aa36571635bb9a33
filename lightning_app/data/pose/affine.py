"""Boxes to crops of one size, and points between the two.

Points are x, y; sizes of crops are (height, width). Reference: mmpose (structures/bbox/transforms.py).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]
PADDING = 1.25  # of a box, in all published pose networks of mmpose


def centre_and_scale(boxes: Tensor, size: Size, padding: float = PADDING) -> tuple[Tensor, Tensor]:
    """Middle of each box, and its sides times ``padding``, the shorter one grown to the aspect of the crops.

    Shape: boxes (..., 4) as x1, y1, x2, y2 in pixels of the photograph -> centre (..., 2), scale (..., 2).
    """
    first, last = boxes[..., :2], boxes[..., 2:]
    return (first + last) / 2, with_aspect((last - first) * padding, size)


def with_aspect(scale: Tensor, size: Size) -> Tensor:
    """Width and height, the one that is too short for the crops' aspect made longer: (..., 2) -> (..., 2)."""
    height, width = size
    aspect = width / height
    w, h = scale.unbind(-1)
    return torch.stack([torch.maximum(w, h * aspect), torch.maximum(h, w / aspect)], dim=-1)


def warps(centre: Tensor, scale: Tensor, size: Size, *, udp: bool = False, rotation: Tensor | None = None) -> Tensor:
    """From pixels of the photograph to those of the crop, x' = A x + b.

    Default: x' = (W / s_w) R (x - c) + (W, H) / 2, R = [[cos, sin], [-sin, cos]]. UDP, which counts intervals between
    pixels and turns the other way: x' = diag((W - 1) / s_w, (H - 1) / s_h) (R^T (x - c) + s / 2).

    Shape: centre and scale (..., 2), rotation (...) in degrees, 0 where not given -> (..., 2, 3) = [A, b].
    """
    height, width = size
    angle = torch.zeros_like(centre[..., 0]) if rotation is None else torch.deg2rad(rotation)
    cos, sin = angle.cos(), angle.sin() * (-1 if udp else 1)
    turn = torch.stack([torch.stack([cos, sin], dim=-1), torch.stack([-sin, cos], dim=-1)], dim=-2)
    pixels = scale.new_tensor([width, height])
    if udp:
        factors = (pixels - 1) / scale
        middle = factors * scale / 2
    else:
        factors = (width / scale[..., :1]).expand_as(scale)
        middle = (pixels / 2).expand_as(scale)
    matrix = factors[..., None] * turn
    return torch.cat([matrix, (middle - _product(matrix, centre))[..., None]], dim=-1)


def transform(points: Tensor, warp: Tensor) -> Tensor:
    """A x + b: points (..., K, 2) by matrices (..., 2, 3) -> (..., K, 2)."""
    return _product(warp[..., None, :, :2], points) + warp[..., None, :, 2]


def _product(matrix: Tensor, vector: Tensor) -> Tensor:
    """(..., 2, 2) by (..., 2), which autocast leaves alone: in bfloat16 a place is off by pixels."""
    return (matrix * vector[..., None, :]).sum(-1)


def to_image(points: Tensor, centre: Tensor, scale: Tensor, size: Size) -> Tensor:
    """Points of a crop in the photograph: x / (W, H) s + c - s / 2, for all codecs, as published.

    Shape: points (..., K, 2) in pixels of the crop, centre and scale (..., 2) -> (..., K, 2).
    """
    pixels = points.new_tensor([size[1], size[0]])
    return points / pixels * scale[..., None, :] + (centre - scale / 2)[..., None, :]


def crop(image: Tensor, warp: Tensor, size: Size) -> Tensor:
    """All crops of one photograph: crop(x') = image(A^-1 (x' - b)), bilinear, 0 outside.

    As warpAffine of OpenCV 5 without its rounding to bytes. OpenCV 4, with which the published figures were measured,
    rounds x to 1/32 of a pixel: up to 3 grey levels of 255 apart.

    Shape: image (C, H, W) of floats or bytes, warp (N, 2, 3) -> (N, C, h, w) of floats.
    """
    height, width = size
    wide = torch.float64 if image.dtype == torch.float64 else torch.float32
    inverse = torch.linalg.inv(warp[..., :2].double())
    source = torch.cat([inverse, -inverse @ warp[..., 2:].double()], dim=-1)  # crop -> photograph
    image, source = _looked_at(image, source, size)
    sides = source.new_tensor([image.shape[-1], image.shape[-2]])
    source = torch.cat([source[..., :2], source[..., 2:] + 0.5], dim=-1) * (2 / sides)[:, None]  # to -1..1, less 1
    xs = torch.arange(width, dtype=source.dtype, device=source.device)
    ys = torch.arange(height, dtype=source.dtype, device=source.device)[:, None]
    along_x, along_y, start = (source[..., None, None, i] for i in range(3))  # (N, 2, 1, 1)
    places = (along_x * xs + (along_y * ys + (start - 1))).to(wide)  # (N, 2, h, w)
    many = image.to(wide).expand(len(warp), *image.shape)
    return F.grid_sample(many, places.movedim(1, -1), mode="bilinear", padding_mode="zeros", align_corners=False)


def _looked_at(image: Tensor, source: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """The part of a photograph that crops show, and the maps from them to it: less to convert."""
    height, width = size
    corners = source.new_tensor([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
    points = transform(corners, source).flatten(0, 1)
    ends = points.new_tensor([image.shape[-1], image.shape[-2]])
    low = torch.minimum((points.amin(0).floor() - 1).clamp(min=0), ends - 1)
    high = torch.minimum(torch.maximum(points.amax(0).ceil() + 2, low + 1), ends)
    (left, top), (right, bottom) = low.long().tolist(), high.long().tolist()
    shifted = torch.cat([source[..., :2], source[..., 2:] - low[:, None]], dim=-1)
    return image[..., top:bottom, left:right], shifted
