"""Augmentation of a picture, the boxes of its objects and their masks; torch's global generator is the only dice."""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F


class ScaleJitter(v2.Transform):  # type: ignore[misc]
    """Resize to fit ``size``, times a random ratio; width and height keep their proportion.

    Bilinear without antialiasing, as the network resizes photographs when it is asked.

    Shape: image (3, H, W) uint8, boxes (N, 4), masks (N, H, W) -> the same of another H and W.

    Args:
        size: the longest short and long side; none = that of the picture.
        scale: range of the ratio.
    """

    def __init__(self, size: tuple[int, int] | None, scale: tuple[float, float]) -> None:
        super().__init__()
        self.size, self.scale = size, scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.query_size(flat_inputs)
        ratio = self.scale[0] + (self.scale[1] - self.scale[0]) * torch.rand(()).item()
        if self.size is not None:
            ratio *= min(self.size[0] / min(height, width), self.size[1] / max(height, width))
        return {"size": [max(1, int(side * ratio + 0.5)) for side in (height, width)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, tv_tensors.Mask):
            return self._call_kernel(F.resize, inpt, params["size"], v2.InterpolationMode.NEAREST_EXACT)
        return self._call_kernel(F.resize, inpt, params["size"], antialias=False)


class RandomWindow(v2.Transform):  # type: ignore[misc]
    """Cut out a random window of ``size``, or less where the picture is smaller. Boxes are cut at its edge.

    Shape: image (3, H, W), boxes (N, 4), masks (N, H, W) -> the same N, of at most ``size``.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        sides = v2.query_size(flat_inputs)
        window = [min(side, most) for side, most in zip(sides, self.size, strict=True)]
        corner = [int(torch.randint(side - cut + 1, ())) for side, cut in zip(sides, window, strict=True)]
        return {"window": [*corner, *window]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(F.crop, inpt, *params["window"])


def visible(boxes: Tensor, masks: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Boxes as far as they lie in a picture, and which objects stay.

    A box that ends at the edge is drawn anew around what is seen of its mask. An object goes with its last pixel, or
    where less than a pixel of its box is left in height or width.

    Shape: boxes (N, 4), masks (N, H, W) -> (N, 4), (N,) bool.
    """
    limits = boxes.new_tensor([size[1], size[0]]).repeat(2)
    inside = torch.minimum(boxes.clamp(min=0), limits)
    keep = (inside[:, 2:] - inside[:, :2] >= 1).all(1)
    if masks is not None and len(boxes):
        keep &= masks.flatten(1).any(1)
        cut = keep & ((inside == 0) | (inside == limits)).any(1)
        around = masks_to_boxes(masks[cut]).to(inside.dtype)
        inside[cut] = around + around.new_tensor([0, 0, 1, 1])  # from pixels to their edges
    return inside, keep
