"""Augmentation of a tv_tensors.Image and its tv_tensors.Mask, both uint8; torch's global generator is the only dice."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

PADDING = [124, 116, 104]  # the mean colour of ImageNet, which the network's normalisation turns into about zero
TILE = 1 << 15  # pixels coloured at a time: what is in between stays in the cache and off the page tables
LUMA = torch.tensor([0.299, 0.587, 0.114])
_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = torch.linalg.inv(_TO_YIQ)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _randint(high: int) -> int:
    return int(torch.randint(high, ()).item())


def _nearest(mask: Tensor, rows: int, columns: int) -> Tensor:
    """``NEAREST_EXACT``, whose pixels lie on the bilinear grid of the image (those of ``NEAREST`` lie half a step off);
    plain indexing takes a third of the time."""
    height, width = mask.shape
    ys, xs = ((2 * np.arange(out) + 1) * size // (2 * out) for out, size in ((rows, height), (columns, width)))
    return torch.from_numpy(mask.numpy()[ys][:, xs])


class RandomScaleCrop(v2.Transform):  # type: ignore[misc]
    """Resize by a random ratio and cut out a random window of ``size``; what lies outside the image is ignored.

    The window is cut before it is resized, which is the same picture for less work.

    Shape: image (3, H, W), mask (H, W) -> image (3, *size), mask (*size).

    Args:
        scale: range of the ratio.
        cat_max_ratio: a window where one class covers more than this share of the labelled pixels is drawn again, ten
            times at most; 1 = take the first.
    """

    def __init__(
        self, size: tuple[int, int], *, scale: tuple[float, float], cat_max_ratio: float = 0.75, ignore_index: int = 255
    ) -> None:
        super().__init__()
        self.size, self.scale, self.cat_max_ratio, self.ignore_index = size, scale, cat_max_ratio, ignore_index

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.query_size(flat_inputs)
        ratio = _uniform(*self.scale)
        window = min(height, math.ceil(self.size[0] / ratio)), min(width, math.ceil(self.size[1] / ratio))
        scaled = min(self.size[0], round(window[0] * ratio)), min(self.size[1], round(window[1] * ratio))
        mask = next((x for x in flat_inputs if isinstance(x, tv_tensors.Mask)), None)
        for _ in range(10):
            top, left = _randint(height - window[0] + 1), _randint(width - window[1] + 1)
            if mask is None or self._varied(mask[top : top + window[0], left : left + window[1]]):
                break
        return {"box": (top, left, *window), "scaled": (max(1, scaled[0]), max(1, scaled[1]))}

    def _varied(self, mask: Tensor) -> bool:
        if self.cat_max_ratio >= 1:
            return True
        counts = torch.bincount(mask.flatten(), minlength=self.ignore_index + 1)
        counts[self.ignore_index] = 0
        return bool(counts.max() <= self.cat_max_ratio * counts.sum()) and bool(counts.any())

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        is_mask = isinstance(inpt, tv_tensors.Mask)
        top, left, height, width = params["box"]
        window = inpt.as_subclass(Tensor)[..., top : top + height, left : left + width]
        rows, columns = params["scaled"]
        if params["scaled"] != (height, width):
            window = _nearest(window, rows, columns) if is_mask else F.resize(window, [rows, columns])
        if params["scaled"] != self.size:
            canvas = torch.empty((*window.shape[:-2], *self.size), dtype=window.dtype)
            canvas[:] = self.ignore_index if is_mask else torch.tensor(PADDING, dtype=window.dtype)[:, None, None]
            canvas[..., :rows, :columns] = window
            window = canvas
        return tv_tensors.wrap(window, like=inpt)


class PhotometricJitter(v2.Transform):  # type: ignore[misc]
    """Brightness, contrast, saturation and hue in one pass over the pixels.

    Each of the four is affine in RGB, so together they are one 3x4 matrix: x' = c b H S x + (1 - c) b m, with
    brightness b, contrast c about the image's mean luma m, saturation S = s I + (1 - s) 1 luma^T, and H a turn of the
    chroma plane of YIQ that keeps luma. ``torchvision.transforms.v2.ColorJitter`` goes over the pixels four times,
    clips in between, and turns hue in HSV.

    Shape: (3, H, W) uint8 -> the same.

    Args:
        brightness, contrast, saturation: factors are drawn from 1 - this to 1 + this.
        hue: turns are drawn from - this to this; 1 is the whole circle.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float) -> None:
        super().__init__()
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        factors = (self.brightness, self.contrast, self.saturation)
        brightness, contrast, saturation = (_uniform(max(0.0, 1 - x), 1 + x) for x in factors)
        angle = 2 * math.pi * _uniform(-self.hue, self.hue)
        cos, sin = math.cos(angle), math.sin(angle)
        turn = _FROM_YIQ @ torch.tensor([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ _TO_YIQ
        matrix = brightness * turn @ (saturation * torch.eye(3) + (1 - saturation) * LUMA.expand(3, 3))
        return {"matrix": contrast * matrix, "shift": (1 - contrast) * brightness}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        pixels = inpt.as_subclass(Tensor).flatten(1)
        mean_luma = LUMA @ pixels[:, ::16].float().mean(1)  # a sixteenth of the pixels tells the mean as well
        shift = (params["shift"] * mean_luma + 0.5).expand(3, 1)  # + 0.5, so that the cut to whole numbers rounds
        coloured = torch.empty_like(pixels)
        for before, after in zip(torch.split(pixels, TILE, 1), torch.split(coloured, TILE, 1), strict=True):
            # by way of int32, since float -> uint8 is not vectorised
            after.copy_(torch.addmm(shift, params["matrix"], before.float()).clamp_(0, 255).int())
        return tv_tensors.wrap(coloured.view(inpt.shape), like=inpt)
