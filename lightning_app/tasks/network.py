"""What every network begins with: photographs in 0..1 become normalised levels of features."""

from collections.abc import Callable
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.backbones.base import Backbone
from lightning_app.heads.base import ContextHead
from lightning_app.tasks.info import Informed
from lightning_app.util.errors import InputError

MOST: Final = 4.0  # of a pixel: 1, and what a sharp resize or noise may add; what is in 0..255 has brighter ones


class Network(Informed, nn.Module):
    """Normalise -> pad -> backbone; what comes behind is a task's own.

    Args:
        channels_last: keep weights and features in the channels-last memory format.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, *, channels_last: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels_last = channels_last
        self.register_buffer("mean", torch.tensor(backbone.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(-1, 1, 1), persistent=False)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """After a change of dtype or device the constants are written anew: a cast float32 keeps its rounding."""
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        for name, values in (("mean", self.backbone.mean), ("std", self.backbone.std)):
            like = getattr(self, name)
            setattr(self, name, torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1))
        return self

    def features(self, images: Tensor) -> list[Tensor]:
        """Backbone levels of images in 0..1, padded with the mean colour to what the backbone can take.

        Raises:
            InputError: no images, or images without pixels or of other channels.
        """
        if images.dim() != 4 or images.shape[1] != len(self.backbone.mean) or 0 in images.shape:
            raise InputError(
                f"Images are of shape {list(images.shape)}: give (B, {len(self.backbone.mean)}, H, W), none of them 0"
            )
        x = (images - self.mean) / self.std
        height, width = self.padded_size(images)
        x = F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        levels: list[Tensor] = self.backbone(x)
        return levels

    def padded_size(self, images: Tensor) -> tuple[int, int]:
        """Height and width that the backbone sees of these images."""
        multiple = self.backbone.size_multiple
        height, width = images.shape[-2:]  # of positive numbers alone: ONNX divides negative ones towards zero
        return (height + multiple - 1) // multiple * multiple, (width + multiple - 1) // multiple * multiple


def head_on(backbone: Backbone, head: Callable[[list[int], int], ContextHead], maps: int) -> ContextHead:
    """A head for the backbone's levels, which gives so many maps.

    Raises:
        InputError: it asks for a level that the backbone does not have.
    """
    try:
        return head(backbone.channels, maps)
    except IndexError as error:
        count = len(backbone.channels)
        raise InputError(
            f"A head asks for a level that is not among the backbone's {count}: 0 to {count - 1}"
        ) from error


def require_unit_range(images: Tensor) -> None:
    """Refuse what would be seen wrongly without a word; while a graph is recorded nothing is looked at.

    Raises:
        InputError: images of whole numbers, or of floats in 0..255.
    """
    if not images.is_floating_point():
        raise InputError(f"Images of {images.dtype}: give floats in 0..1 (divide by 255), or call predict(image)")
    if torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export() or images.is_meta:
        return
    if images.is_cuda and torch.cuda.is_current_stream_capturing():
        return
    if images.numel() and (most := images.detach().amax().item()) > MOST:
        raise InputError(f"Images up to {most:.4g}: give floats in 0..1 (divide by 255), or call predict(image)")
