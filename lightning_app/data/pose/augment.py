"""What a training crop shows: mirror, half body, shift, scale and rotation, all in one affine map."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lightning_app.data.pose.affine import Size, centre_and_scale, transform, warps, with_aspect
from lightning_app.data.pose.facts import Keypoints
from lightning_app.util.errors import InputError

HALF_PADDING: Final = 1.5  # of the box round half of the points
UPPER_FIRST: Final = 0.7  # how often the upper half is taken where both could be
LEAST: Final = (9, 2, 3)  # labelled points in all, above and below, for half of them to be cut out


@dataclass(frozen=True)
class Augmentation:
    """How much training crops vary. The defaults are those of mmpose's top-down recipes.

    Args:
        flip: share of the crops that are mirrored.
        half_body: share of the people that are cut in half, where the facts say which points are the upper ones.
        shift: at most this share of the box's sides.
        shift_share: of the crops that are shifted.
        scale: range of the factor on the box.
        rotation: at most this many degrees.
        rotation_share: of the crops that are turned.

    Raises:
        InputError: a share outside 0 and 1, or a range that is none.
    """

    flip: float = 0.5
    half_body: float = 0.3
    shift: float = 0.16
    shift_share: float = 0.3
    scale: tuple[float, float] = (0.5, 1.5)
    rotation: float = 80.0
    rotation_share: float = 0.6

    def __post_init__(self) -> None:
        for name in ("flip", "half_body", "shift_share", "rotation_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augmentation.{name} is {getattr(self, name)}: give a share from 0 to 1")
        if not 0 < self.scale[0] <= self.scale[1]:
            low, high = self.scale
            raise InputError(f"augmentation.scale {low}, {high}: give the smallest and the largest factor, above 0")


def training_map(
    box: Tensor,
    keypoints: Tensor,
    width: int,
    size: Size,
    facts: Keypoints,
    augmentation: Augmentation,
    *,
    udp: bool,
) -> tuple[Tensor, Tensor]:
    """A random map of photograph pixels to crop pixels, and where it puts the keypoints; torch's generator is the dice.

    Shift, scale and rotation are normal draws cut at one standard deviation, which is the given maximum.

    Shape: box (4,), keypoints (K, 3) -> (2, 3), (K, 3).

    Args:
        width: of the photograph.
        size: (H, W) of the crop.

    Consulted: mmpose's RandomFlip, RandomHalfBody and RandomBBoxTransform; HRNet's half_body_transform.
    """
    centre, scale = centre_and_scale(box, size)
    keypoints = keypoints.clone()
    mirrored = _chance(augmentation.flip)
    if mirrored:
        keypoints = keypoints[facts.flip_indices]
        keypoints[:, 0] = width - 1 - keypoints[:, 0]
        centre = torch.stack([width - 1 - centre[0], centre[1]])
    half = _half(keypoints, facts) if _chance(augmentation.half_body) else None
    if half is not None:
        centre = half.mean(0)
        scale = with_aspect(HALF_PADDING * (half.amax(0) - half.amin(0)), size)
    if _chance(augmentation.shift_share):
        centre = centre + augmentation.shift * scale * _truncated(2)
    low, high = augmentation.scale
    scale = scale * ((high + low) / 2 + (high - low) / 2 * _truncated(1))
    turned = _truncated(1)[0] if _chance(augmentation.rotation_share) else torch.zeros((), dtype=torch.float64)
    matrix = warps(centre, scale, size, udp=udp, rotation=augmentation.rotation * turned)
    keypoints[:, :2] = transform(keypoints[:, :2], matrix)
    return matrix @ _mirror(width) if mirrored else matrix, keypoints


def _mirror(width: int) -> Tensor:
    """x -> width - 1 - x. Shape: (3, 3)."""
    return torch.tensor([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)


def _half(keypoints: Tensor, facts: Keypoints) -> Tensor | None:
    """The labelled points (x, y) of the upper or the lower half; none where there are too few."""
    if not facts.upper:
        return None
    labelled = keypoints[:, 2] > 0
    is_upper = torch.zeros(len(facts.names), dtype=torch.bool)
    is_upper[list(facts.upper)] = True
    upper, lower = keypoints[labelled & is_upper, :2], keypoints[labelled & ~is_upper, :2]
    least, least_upper, least_lower = LEAST
    halves = [half for half, few in ((upper, least_upper), (lower, least_lower)) if len(half) >= few]
    if labelled.sum() < least or not halves:
        return None
    half = halves[0] if len(halves) == 1 or _chance(UPPER_FIRST) else halves[1]
    return half if bool((half.amax(0) > half.amin(0)).any()) else None


def _chance(share: float) -> bool:
    return bool(torch.rand(()).item() < share)


def _truncated(count: int) -> Tensor:
    """Standard normal numbers between -1 and 1."""
    return torch.nn.init.trunc_normal_(torch.empty(count, dtype=torch.float64), a=-1.0, b=1.0)
