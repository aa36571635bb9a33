"""Maps of a mirrored crop as those of the crop. Reference: mmpose (models/utils/tta.py)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def flip_maps(maps: Tensor, flip_indices: Sequence[int]) -> Tensor:
    """Mirror each map and give it to the point that its own becomes in a mirror.

    Shape: maps (..., K, h, w) -> the same.

    Args:
        flip_indices: K numbers: the left wrist's place holds the right wrist's number.
    """
    return maps.flip(-1)[..., list(flip_indices), :, :]


def flip_combined(maps: Tensor, flip_indices: Sequence[int]) -> Tensor:
    """``flip_maps`` where a point has disc, x offset and y offset: in a mirror x offsets change their sign.

    Shape: maps (..., 3 K, h, w) -> the same.
    """
    mirrored = torch.unflatten(maps, -3, (-1, 3)).flip(-1)[..., list(flip_indices), :, :, :]
    signs = torch.tensor([1, -1, 1], dtype=maps.dtype, device=maps.device)
    return (mirrored * signs[:, None, None]).flatten(-4, -3)


def shift_right(maps: Tensor) -> Tensor:
    """Each map moved by one pixel; the first column stays."""
    return torch.cat([maps[..., :1], maps[..., :-1]], dim=-1)
