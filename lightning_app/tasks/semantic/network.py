"""The whole network: photographs in, logits at their size out."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.backbones.base import Backbone
from lightning_app.blocks._layers import resize
from lightning_app.data.facts import default_palette
from lightning_app.data.pictures import Picture
from lightning_app.heads.base import Auxiliary, ContextHead, Outputs
from lightning_app.heads.several import Several
from lightning_app.kernels.folding import fold_batch_norms
from lightning_app.kernels.half import InFloat32, has_bfloat16
from lightning_app.tasks.explain import Box, Seen
from lightning_app.tasks.info import Info
from lightning_app.tasks.network import Network, require_unit_range
from lightning_app.tasks.semantic.protocol import EvaluationProtocol, fitted
from lightning_app.tasks.semantic.segmentation import Segmentation
from lightning_app.tasks.semantic.segmenter import Options, Segmenter
from lightning_app.util.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ModelInfo(Info):
    """What pretrained weights know besides their numbers, and ``Info`` for the rest.

    Args:
        classes: names in label order.
        palette: RGB of each class.
        protocol: how images are to be looked at.
    """

    task: str = "semantic"
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    protocol: EvaluationProtocol

    @classmethod
    def of_classes(cls, name: str, classes: Sequence[str]) -> Self:
        """What is known of a new network: names of its classes, a colour for each, and images as they are."""
        palette = default_palette(len(classes))
        return cls(name=name, classes=tuple(classes), palette=palette, protocol=EvaluationProtocol())

    @property
    def outputs(self) -> int:
        return len(self.classes)


class Segmentor(Network):
    """Normalise, backbone, head (and auxiliary head) -> logits at the images' size.

    ``segmentor(images)`` is what gets exported; ``segmentor.outputs(images)`` adds the side outputs for the loss;
    ``segmentor.predict("photo.jpg")`` gives the class of each pixel by the protocol of pretrained weights.

    Shape: RGB images (B, 3, H, W) in 0..1, any H and W -> logits (B, num_classes, H, W).

    Args:
        auxiliary: a second head whose loss helps training; ``Several`` for more than one.
        auxiliary_weight: weight of that loss, of each.
        channels_last: keep weights and features in the channels-last memory format.
    """

    info: ModelInfo | None = None  # of pretrained weights
    reduced: torch.dtype | None = None  # what is computed in after ``fast``

    def __init__(
        self,
        backbone: Backbone,
        head: ContextHead,
        auxiliary: ContextHead | None = None,
        *,
        auxiliary_weight: float = 0.4,
        channels_last: bool = False,
    ) -> None:
        super().__init__(backbone, channels_last=channels_last)
        self.head = head
        self.auxiliary = auxiliary
        self.auxiliary_weight = auxiliary_weight
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the images' size.

        Raises:
            InputError: images of whole numbers, or of floats in 0..255.
        """
        require_unit_range(images)
        height, width = images.shape[-2:]
        with torch.autocast(images.device.type, self.reduced) if self.reduced else nullcontext():
            return self.head.at(self.features(images), self.padded_size(images))[..., :height, :width]

    def fast(self, *, half: bool | None = None) -> Self:
        """This network, changed to predict faster; it cannot be trained any more.

        Batch norms go into the convolutions in front of them. Where the processor multiplies bfloat16, the rest is
        computed in it, channels last, but for the last layer and what is resized to the image: nearly all labels stay.

        Args:
            half: whether to use bfloat16; None: where this machine has it.
        """
        self.eval().requires_grad_(False)
        self.auxiliary = None
        fold_batch_norms(self, self._example)
        if has_bfloat16(next(self.parameters()).device) if half is None else half:
            self.reduced, self.channels_last = torch.bfloat16, True
            self.to(memory_format=torch.channels_last)
            if isinstance(self.head.classifier, nn.Conv2d):
                self.head.classifier = InFloat32(self.head.classifier)  # type: ignore[assignment]
        return self

    def _example(self) -> Tensor:
        """Logits of a small image; of a larger one where a head needs that."""
        device = next(self.parameters()).device
        noise = torch.rand(1, 3, 800, 800, generator=torch.Generator().manual_seed(0)).to(device)
        try:
            return self.forward(noise[..., :128, :128])
        except (RuntimeError, ValueError):
            return self.forward(noise)

    def predict(self, picture: Picture, **options: Any) -> Segmentation:
        """The class of each pixel of one picture, as ``contextzoo segment`` gives it, at the picture's own size.

        Args:
            picture: a file, a Pillow image, an array (H, W, 3) of bytes, or a tensor (3, H, W) of floats in 0..1.
            options: window, overlap, tta, precision and batch of ``Options``.

        Raises:
            InputError: a picture or an option that cannot be used, or weights that do not say what they are.
        """
        return self.segmenter(Options(**options))(picture)

    def segmenter(self, options: Options) -> Segmenter:
        """What segments one picture after another."""
        known = self.known
        return Segmenter(self, known.protocol, known.classes, known.palette, options)

    def seen(self, pixels: Tensor, at: tuple[int, int]) -> Seen:
        """The photograph as the protocol looks at it: the whole in its box, or the window around the pixel."""
        height, width = pixels.shape[-2:]
        how = self.segmenter(Options()).protocol((height, width))
        image = pixels[None].to(self.mean.device, self.mean.dtype) / 255
        if how.mode == "slide" and how.fit is None and how.crop is not None:
            top, left = (
                min(max(place - side // 2, 0), max(length - side, 0))
                for place, side, length in zip(at, how.crop, (height, width), strict=True)
            )
            image = image[..., top : top + how.crop[0], left : left + how.crop[1]]
            return Seen(image, Box(left, top, left + image.shape[-1], top + image.shape[-2]))
        size = fitted((height, width), how)
        if size != (height, width):
            image = F.interpolate(image, size, mode="bilinear", antialias=how.antialias)
        return Seen(image, Box(0, 0, width, height))

    def answer(self, image: Tensor, at: tuple[int, int]) -> tuple[Tensor, str]:
        """The logit of the likeliest class at one pixel, with its name and probability."""
        logits = self(image)[0, :, at[0], at[1]]
        likeliest = int(logits.argmax())
        return logits[likeliest], f"{self.known.classes[likeliest]}, {100 * logits.softmax(0)[likeliest]:.0f} %"

    @property
    def known(self) -> ModelInfo:
        """What the weights know besides their numbers.

        Raises:
            InputError: they are not pretrained.
        """
        info: ModelInfo = super().known
        return info

    def parts(self) -> dict[str, Any]:
        auxiliary = self.auxiliary
        return {
            "backbone": self.backbone.description(),
            "head": self.head.description(skip=2),  # the levels' widths and the number of classes
            "auxiliary": None if auxiliary is None else auxiliary.description(skip=2),
            "auxiliary_weight": self.auxiliary_weight,
            "channels_last": self.channels_last,
        }

    def outputs(self, images: Tensor) -> Outputs:
        """Prediction and side outputs, maps at the images' size.

        Raises:
            InputError: in training, a batch norm is left with one value per channel, which has no variance.
        """
        try:
            return self._outputs(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):  # torch's own words
                raise
            height, width = images.shape[-2:]
            raise InputError(
                f"{type(self.head).__name__} cannot train on batches of {len(images)} image of {width}x{height}: a "
                "batch norm sees a map of one pixel, which has no variance. Give --data.batch_size 2 or more (it "
                "counts per device), or on several GPUs --trainer.sync_batchnorm true"
            ) from error

    def _outputs(self, images: Tensor) -> Outputs:
        features = self.features(images)
        logits, side = self.head.outputs(features)
        side = tuple(
            each._replace(logits=self._at_image_size(each.logits, images, self.head.align_corners))
            if each.loss == "pixels"
            else each
            for each in side
        )
        for head in self.auxiliary_heads:
            extra = self._at_image_size(head(features), images, head.align_corners)
            side += (Auxiliary(extra, self.auxiliary_weight),)
        return Outputs(self._at_image_size(logits, images, self.head.align_corners), side)

    @property
    def auxiliary_heads(self) -> list[ContextHead]:
        """The heads beside the one that predicts: none, one or several."""
        if isinstance(self.auxiliary, Several):
            return [head for head in self.auxiliary.heads if isinstance(head, ContextHead)]
        return [] if self.auxiliary is None else [self.auxiliary]

    def _at_image_size(self, logits: Tensor, images: Tensor, align_corners: bool) -> Tensor:
        height, width = images.shape[-2:]
        return resize(logits, self.padded_size(images), align_corners)[..., :height, :width]
