"""Pictures to class numbers, by the protocol of the weights and what was asked on top of it."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_app.data.pictures import Picture, pixels_of
from lightning_app.tasks.info import evaluating
from lightning_app.tasks.legend import Colours
from lightning_app.tasks.semantic.inference import predict_classes
from lightning_app.tasks.semantic.protocol import EvaluationProtocol, Size, fitted
from lightning_app.tasks.semantic.segmentation import Segmentation
from lightning_app.util.errors import InputError, check_choice

PRECISIONS: Final = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
SCALES: Final = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of test-time augmentation: those of the field's figures
WHOLE: Final = 2048 * 1024  # pixels: larger images are seen in windows where the protocol has neither box nor windows
WINDOW: Final = (1024, 1024)
# On every third of CamVid's validation labels the FCN of 240x180 has 58.0 mIoU, with windows at twice that size
# averaged in 59.5, by these windows alone 51.0, and with windows at four times that size averaged in as well 57.9.
LARGE: Final = 6  # times the protocol's box along a side: larger images are seen at these scales of the box
CLOSER: Final = (1.0, 2.0)
LOGITS: Final = 192 * 2**20  # bytes of logits that are held at once

Ids = NDArray[np.uint8]
Advance = Callable[[float], None]


@dataclass(frozen=True)
class Options:
    """What is asked on top of the protocol that the weights were measured by.

    Args:
        window: look at images at their own resolution, in windows of this height and width (one number: square); auto
            is the weights' protocol, with windows where an image is much larger than what they know; none, or 0, is
            without windows, however large the image.
        overlap: share of a window that the next one sees again, 0 to 0.9; None is the protocol's.
        tta: average over six scales, each mirrored as well: slower and better.
        precision: 32-true, bf16-mixed or 16-mixed.
        batch: windows that go through the model together.

    Raises:
        InputError: a value that cannot be.
    """

    window: Size | int | Literal["auto", "none"] = "auto"
    overlap: float | None = None
    tta: bool = False
    precision: str = "32-true"
    batch: int = 1

    def __post_init__(self) -> None:
        sides = self.window if isinstance(self.window, Sequence) else (self.window or 1,) * 2
        if self.window not in ("auto", "none") and (
            len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides)
        ):
            raise InputError(f"window {self.window} is not a size such as (512, 1024) or 512, auto or none")
        if self.overlap is not None and not 0 <= self.overlap <= 0.9:
            raise InputError(f"overlap {self.overlap} is not a share from 0 to 0.9")
        if self.batch < 1:
            raise InputError(f"batch is {self.batch}: give 1 window or more")
        check_choice("precision", self.precision, tuple(PRECISIONS))

    @property
    def crop(self) -> Size | None:
        """Height and width of the windows that were asked for."""
        if isinstance(self.window, str) or not self.window:
            return None
        height, width = (self.window, self.window) if isinstance(self.window, int) else self.window
        return height, width

    @property
    def without_windows(self) -> bool:
        return self.window in ("none", 0)


class Segmenter:
    """Pictures to their ``Segmentation``.

    When memory runs out, the window is halved once and stays so.

    Args:
        network: RGB images (B, 3, H, W) in 0..1 -> logits (B, K, H, W), K the number of classes.
        protocol: how its weights were measured.
    """

    def __init__(
        self,
        network: nn.Module,
        protocol: EvaluationProtocol,
        classes: Sequence[str],
        palette: Colours,
        options: Options = Options(),
    ) -> None:
        self.network, self.measured, self.options = network, protocol, options
        self.classes, self.palette = classes, palette
        self.halved = False

    def __call__(self, picture: Picture, advance: Advance = lambda share: None) -> Segmentation:
        """What is in a picture; ``advance`` hears of each share of the pixels that is done.

        Raises:
            InputError: a file that cannot be used (``BadFile``), or no picture.
            MemoryError: half the window is too much as well.
        """
        image = pixels_of(picture)
        mask = self._attempt(image, advance)
        if mask is None and not self.halved:
            self.halved = True
            crop = self.protocol((image.shape[0], image.shape[1])).crop
            assert crop is not None
            print(f"Out of memory: going on in windows of {crop[0]}x{crop[1]}", file=sys.stderr)
            mask = self._attempt(image, advance)
        if mask is None:
            raise MemoryError
        protocol = self.protocol((image.shape[0], image.shape[1]))
        return Segmentation(image, mask, self.classes, self.palette, protocol)

    def _attempt(self, image: NDArray[np.uint8], advance: Advance) -> Ids | None:
        """Class numbers; None where memory runs out."""
        try:
            with evaluating(self.network):
                return self._classes(image, advance)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def protocol(self, size: Size) -> EvaluationProtocol:
        """How an image of this size is looked at."""
        options, how = self.options, self.measured
        if options.crop:
            how = replace(how, mode="slide", crop=options.crop, stride=None, fit=None)
        elif options.without_windows:
            how = replace(how, mode="whole", crop=None, stride=None)
        elif self.is_large(size):
            if how.fit is None:
                how = replace(how, mode="slide", crop=WINDOW, stride=None)
            else:
                scales = tuple(scale * closer for closer in CLOSER for scale in how.scales)
                crop = how.crop or fitted(size, how)
                how = replace(how, mode="slide", crop=crop, scales=scales)
        if self.halved:
            height, width = how.crop if how.mode == "slide" and how.crop else fitted(size, how)
            how = replace(how, mode="slide", crop=(-(-height // 2), -(-width // 2)), stride=None)
        if options.overlap is not None and how.crop:
            down, across = (max(round(side * (1 - options.overlap)), 1) for side in how.crop)
            how = replace(how, stride=(down, across))
        if options.tta:
            how = replace(how, scales=SCALES, flip=True)
        return replace(how, antialias=how.antialias or how.fit is not None, batch=options.batch)

    def is_large(self, size: Size) -> bool:
        """Whether an image of this size is so much larger than what the weights know that windows are needed."""
        how = self.measured
        if how.fit is not None:
            return max(size) > LARGE * max(fitted(size, how))
        return how.mode == "whole" and size[0] * size[1] > WHOLE

    @torch.inference_mode()
    def _classes(self, image: NDArray[np.uint8], advance: Advance) -> Ids:
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        height, width = image.shape[:2]
        how = self.protocol((height, width))
        ids = np.empty((height, width), dtype=np.uint8)
        for place, classes in predict_classes(self.logits, pixels, (height, width), how, self._tile(how)):
            ids[place] = classes[0].to("cpu", torch.uint8).numpy()
            advance(classes[0].numel() / ids.size)
        return ids

    def logits(self, pixels: Tensor) -> Tensor:
        """Of bytes (B, C, H, W), where the network is."""
        device = next(self.network.parameters()).device
        images = pixels.to(device).float() / 255
        dtype = PRECISIONS[self.options.precision]
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits: Tensor = self.network(images)
        return logits

    def _tile(self, how: EvaluationProtocol) -> Size:
        """As many columns of the height of a window as have logits that fit, in whole steps of the windows.

        Where views are resized, a square of a quarter of that, since a resize needs room.
        """
        room = LOGITS // (4 * len(self.classes))
        if how.mode == "whole" or how.fit or how.crop is None or self.options.tta:
            side = math.isqrt(room // 4)
            return side, side
        across = how.stride[1] if how.stride else round(how.crop[1] * 2 / 3) or 1
        return how.crop[0], max(room // how.crop[0] // across, 1) * across


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
