"""Keypoints as maps and back: the four rules of the field, chosen by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from lightning_app.tasks.pose import decoding, flip, targets
from lightning_app.tasks.pose.losses import combined_loss, heatmap_loss
from lightning_app.util.errors import InputError, check_choice

Size = tuple[int, int]
Kind = Literal["msra", "dark", "udp", "udp_combined"]
KINDS: Final = ("msra", "dark", "udp", "udp_combined")
STRIDE: Final = 4  # input pixels per map pixel where no size of the maps is given


@dataclass(frozen=True)
class Codec:
    """What the maps of a pose network mean.

    ``encode`` makes the targets, ``decode`` finds the keypoints, ``flip`` brings the maps of a mirrored crop back and
    ``loss`` compares. All of them take any leading dimensions and work where the tensors are.

    Args:
        kind: "msra" rounds a point to a pixel and reads a quarter of a pixel back; "dark" (arXiv:1910.06278) and "udp"
            (arXiv:1911.07524) keep its fraction and read it by a Newton step on the logarithm; "udp_combined" has a
            disc and two offsets for each point.
        input_size: height and width of the crops.
        heatmap_size: height and width of the maps; None = a quarter of the crops.
        sigma: of the Gaussian, in pixels of the maps.
        blur_kernel: pixels along the side of the blur in front of the Newton step, odd.
        radius: of the disc of "udp_combined", as a share of the longer side of the maps.

    Raises:
        InputError: a value that cannot be.
    """

    kind: Kind = "msra"
    input_size: Size = (256, 192)
    heatmap_size: Size | None = None
    sigma: float = 2.0
    blur_kernel: int = 11
    radius: float = 0.0546875

    def __post_init__(self) -> None:
        check_choice("codec", self.kind, KINDS)
        for name, size in (("input_size", self.input_size), ("heatmap_size", self.heatmap_size or (2, 2))):
            if len(size) != 2 or not all(isinstance(side, int) and side > 1 for side in size):
                raise InputError(f"{name} {size} is no height and width such as (256, 192)")
        if self.sigma <= 0 or self.radius <= 0:
            raise InputError(f"sigma {self.sigma} and radius {self.radius} must be larger than 0")
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0:
            raise InputError(f"blur_kernel {self.blur_kernel} is not an odd number of pixels such as 11")

    @property
    def maps(self) -> Size:
        """Height and width of the maps."""
        height, width = self.input_size
        return self.heatmap_size or (height // STRIDE, width // STRIDE)

    @property
    def maps_per_point(self) -> int:
        """Maps that a network gives for each keypoint."""
        return 3 if self.kind == "udp_combined" else 1

    @property
    def udp(self) -> bool:
        """Whether lengths are counted in intervals between pixels, in crops as in maps."""
        return self.kind.startswith("udp")

    @property
    def strides(self) -> tuple[float, float]:
        """Input pixels per map pixel, along x and y."""
        less = 1 if self.udp else 0
        (height, width), (rows, columns) = self.input_size, self.maps
        return (width - less) / (columns - less), (height - less) / (rows - less)

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Target maps and the weight of each point.

        A point that is not visible has an empty map. One whose Gaussian lies wholly outside has weight 0.

        Shape: keypoints (..., K, 2) as x, y in pixels of the crop, visible (..., K), 1 where a point is labelled ->
        maps (..., M, h, w) with M = K, or 3 K as disc, x offset, y offset of one point after the other, and weights
        (..., K).
        """
        points = keypoints / keypoints.new_tensor(self.strides)
        match self.kind:
            case "msra":
                return targets.rounded(points, visible, self.maps, self.sigma)
            case "dark":
                return targets.unbiased(points, visible, self.maps, self.sigma)
            case "udp":
                return targets.shifted(points, visible, self.maps, self.sigma)
            case "udp_combined":
                return targets.discs_and_offsets(points, visible, self.maps, self._disc)

    def decode(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints in pixels of the crop and their scores, the height of each map.

        Of equal maxima the first in row order counts. A map without anything above 0 says (-1, -1) in map pixels.

        Shape: maps (..., M, h, w) -> (..., K, 2) as x, y and (..., K), in float32 or finer.
        """
        with torch.autocast(maps.device.type, enabled=False):  # a step of a tenth of a pixel is lost in bfloat16
            points, scores = self._decode(maps.float() if maps.dtype.itemsize < 4 else maps)
        (height, width), (rows, columns) = self.input_size, self.maps
        less = 1 if self.udp else 0  # UDP divides by intervals and multiplies by pixels, as published
        factors = points.new_tensor([width / (columns - less), height / (rows - less)])
        return points * factors, scores

    def _decode(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints in pixels of the maps, and their scores."""
        match self.kind:
            case "msra":
                return decoding.quarter_step(maps)
            case "dark":
                return decoding.newton_step(maps, self.blur_kernel)
            case "udp":
                return decoding.newton_step_udp(maps, self.blur_kernel)
            case "udp_combined":
                return decoding.disc_and_offset(maps, 2 * self.blur_kernel + 1, self._disc)

    def flip(self, maps: Tensor, flip_indices: Sequence[int], *, shift: bool | None = None) -> Tensor:
        """The maps of mirrored crops as those of the crops themselves.

        Args:
            flip_indices: for each point the one that it becomes in a mirror.
            shift: move them one pixel to the right, as the default and DARK's crops, half a pixel off, need it; None =
                as the kind needs it.
        """
        move = not self.udp if shift is None else shift
        mirror = flip.flip_combined if self.kind == "udp_combined" else flip.flip_maps
        return flip.shift_right(mirror(maps, flip_indices)) if move else mirror(maps, flip_indices)

    def loss(self, output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        """The loss that networks of this kind are trained with: see ``losses``."""
        return (combined_loss if self.kind == "udp_combined" else heatmap_loss)(output, target, weights)

    @property
    def _disc(self) -> float:
        """Radius of the disc, in map pixels."""
        return self.radius * max(self.maps)
