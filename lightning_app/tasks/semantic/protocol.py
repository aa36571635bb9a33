"""How images are evaluated: whole or in windows, at which scales, in which box."""

from dataclasses import dataclass
from typing import Literal

from lightning_app.util.errors import InputError

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class EvaluationProtocol:
    """How predictions are made.

    Args:
        mode: the whole image at once, or windows over it whose logits are averaged where they overlap.
        crop: height and width of a window.
        stride: step between windows, down and across; two thirds of the crop by default.
        scales: factors by which the image is resized, one view each.
        flip: add the mirrored image to each view.
        align_corners: convention of the resize from logits to the label's size: the head's own.
        fit: longer and shorter side of a box; images are first resized to fill it, their ratio kept.
        antialias: smooth images where a resize shrinks them.
        batch: windows that go through the model together.
        offload: keep sums in host memory, for images whose logits do not fit on the device.

    Raises:
        InputError: windows without a crop or with gaps between them, scales or sides that are not positive.
    """

    mode: Literal["whole", "slide"] = "whole"
    crop: Size | None = None
    stride: Size | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    align_corners: bool = False
    fit: tuple[int, int] | None = None
    antialias: bool = False
    batch: int = 1
    offload: bool = False

    def __post_init__(self) -> None:
        if self.mode == "slide":
            if self.crop is None or min(self.crop) <= 0:
                raise InputError(f"Sliding windows need a crop such as [512, 512], it is {self.crop}")
            if self.stride and not all(0 < step <= side for step, side in zip(self.stride, self.crop, strict=True)):
                raise InputError(
                    f"Stride {self.stride} must lie between 1 and the crop {self.crop}, or windows leave gaps"
                )
        if self.fit and not self.fit[0] >= self.fit[1] > 0:
            raise InputError(f"Images cannot fit {self.fit}: give the longer and the shorter side, such as [2048, 512]")
        if not self.scales or min(self.scales) <= 0:
            raise InputError(f"Scales {list(self.scales)} must be one or more positive factors, such as [1.0]")


def fitted(size: Size, protocol: EvaluationProtocol) -> Size:
    """Size of an image once it fills the protocol's box."""
    if protocol.fit is None:
        return size
    ratio = min(protocol.fit[0] / max(size), protocol.fit[1] / min(size))
    return int(size[0] * ratio + 0.5) or 1, int(size[1] * ratio + 0.5) or 1
