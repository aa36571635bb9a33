"""From images to logits at the label's size: whole or by sliding window, mirrored and at several scales.

Pure functions of a ``model`` that maps images (B, C, H, W) to logits (B, K, h, w).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.errors import InputError

Model = Callable[[Tensor], Tensor]
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Protocol:
    """How predictions are made.

    Args:
        mode: the whole image at once, or windows over it whose logits are averaged where they overlap.
        crop: height and width of a window.
        stride: step between windows, down and across; two thirds of the crop by default.
        scales: factors by which the image is resized, one view each.
        flip: add the mirrored image to each view.
        align_corners: convention of the resize from logits to the label's size.
        offload: keep sums in host memory, for images whose logits do not fit on the device.

    Raises:
        InputError: windows without a crop or with gaps between them, or scales that are not positive.
    """

    mode: Literal["whole", "slide"] = "whole"
    crop: Size | None = None
    stride: Size | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    align_corners: bool = False
    offload: bool = False

    def __post_init__(self) -> None:
        if self.mode == "slide":
            if self.crop is None or min(self.crop) <= 0:
                raise InputError(f"Sliding windows need a crop such as [512, 512], it is {self.crop}")
            if self.stride and not all(0 < step <= side for step, side in zip(self.stride, self.crop, strict=True)):
                raise InputError(
                    f"Stride {self.stride} must lie between 1 and the crop {self.crop}, or windows leave gaps"
                )
        if not self.scales or min(self.scales) <= 0:
            raise InputError(f"Scales {list(self.scales)} must be one or more positive factors, such as [1.0]")


def predict(model: Model, images: Tensor, size: Size, protocol: Protocol) -> Tensor:
    """Logits at the label's size.

    One view (one scale, not mirrored): the model's logits, resized. Several: each view's logits are resized to the
    label's size and their softmax probabilities averaged there, as the field does; the result is
    log(mean_v softmax(logits_v)), so that its softmax is that average.

    Shape: images (B, C, H, W) -> (B, K, *size).

    Consulted: mmsegmentation's slide_inference, postprocess_result and SegTTAModel.
    """
    views = [(scale, mirrored) for scale in protocol.scales for mirrored in (False, True)[: 1 + protocol.flip]]

    def see(scale: float, mirrored: bool) -> Tensor:
        height, width = images.shape[-2:]
        view = _resize(images, (round(height * scale) or 1, round(width * scale) or 1))
        if mirrored:
            view = view.flip(-1)
        if protocol.mode == "slide":
            assert protocol.crop is not None
            logits = sliding_window(
                model, view, protocol.crop, protocol.stride, protocol.align_corners, protocol.offload
            )
        else:
            logits = model(view)
        if mirrored:
            logits = logits.flip(-1)
        return _resize(_settle(logits, protocol.offload), size, protocol.align_corners)

    logits = see(*views[0])
    if len(views) == 1:
        return logits
    mean = logits.softmax(1)
    for view in views[1:]:
        mean += see(*view).softmax(1)
    return mean.div_(len(views)).clamp_(min=torch.finfo(mean.dtype).tiny).log_()


def sliding_window(
    model: Model,
    images: Tensor,
    crop: Size,
    stride: Size | None = None,
    align_corners: bool = False,
    offload: bool = False,
) -> Tensor:
    """Logits at the image's size: the mean over the windows that hold a pixel.

    Windows stand at multiples of the stride; the last of a row or column is moved back to end at the image's border. An
    image smaller than the crop is one smaller window.

    Shape: images (B, C, H, W) -> (B, K, H, W).
    """
    height, width = images.shape[-2:]
    down, across = stride or (round(crop[0] * 2 / 3) or 1, round(crop[1] * 2 / 3) or 1)
    total, count = torch.zeros(()), torch.zeros(height, width)
    for top in _starts(height, crop[0], down):
        for left in _starts(width, crop[1], across):
            window = (..., slice(top, top + crop[0]), slice(left, left + crop[1]))
            view = images[window]
            logits = _resize(_settle(model(view), offload), (view.shape[-2], view.shape[-1]), align_corners)
            if not total.ndim:
                total = logits.new_zeros(*logits.shape[:2], height, width)
            total[window] += logits
            count[window] += 1
    return total.div_(count.to(total.device))


def _starts(side: int, crop: int, stride: int) -> list[int]:
    """Where windows begin along one side."""
    last = max(side - crop, 0)
    return [min(i * stride, last) for i in range(-(-last // stride) + 1)]


def _settle(logits: Tensor, offload: bool) -> Tensor:
    """Logits where, and in the precision in which, they are summed."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits.cpu() if offload else logits


def _resize(x: Tensor, size: Size, align_corners: bool = False) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=align_corners)
