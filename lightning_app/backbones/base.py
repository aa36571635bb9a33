"""The contract of every backbone: an image in, a list of feature levels out."""

from abc import ABC, abstractmethod

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from lightning_app.util.described import Described


class Backbone(Described, nn.Module, ABC):
    """What heads and the segmentor need to know of a backbone.

    Shape: normalised images (B, in_channels, H, W) -> levels (B, channels[i], h_i, w_i), finest first.

    Attributes:
        channels: width of each level.
        reductions: image pixels per level pixel, along one side.
        mean: per-channel mean of images in 0..1, to normalise with.
        std: per-channel standard deviation likewise.
        size_multiple: H and W must be multiples of this; the segmentor pads up to it.
    """

    channels: list[int]
    reductions: list[int]
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    size_multiple: int = 1

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]: ...
