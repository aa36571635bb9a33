"""The contract of every head, and the skeleton that the one-block papers share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, resize
from lightning_app.kernels.layout import classes_together
from lightning_app.util.described import Described


class Auxiliary(NamedTuple):
    """A side output, the weight of its loss, and which loss that is.

    ``logits`` is a map (B, num_classes, h, w) where ``loss`` is "pixels", and (B, num_classes) where it is "presence":
    which classes are in the image.
    """

    logits: Tensor
    weight: float
    loss: Literal["pixels", "presence"] = "pixels"


class Outputs(NamedTuple):
    """All that a loss needs: the prediction and the side outputs."""

    logits: Tensor
    auxiliary: tuple[Auxiliary, ...] = ()


class ContextHead(Described, nn.Module, ABC):
    """Backbone levels -> logits.

    ``head(features)`` gives the prediction; ``head.outputs(features)`` adds the side outputs that training needs.
    A subclass implements ``context``, and ``outputs`` where it has side outputs. It names its own arguments and
    passes ``**options`` (dropout, align_corners, low_level_channels) on to here, where a misspelt one raises.

    Shape: features = levels (B, in_channels[i], h_i, w_i), finest first -> logits (B, num_classes, h, w) of the level
    it reads. Resizing to the image is the segmentor's work, with this head's ``align_corners``.

    Args:
        in_channels: width of each backbone level.
        channels: width in front of the classifier.
        dropout: share of whole channels dropped in front of the classifier.
        align_corners: convention of every bilinear resize from here to the image.
        low_level_channels: refine with this many channels of the finest level (as DeepLabV3+ does); 0 = none.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int,
        *,
        dropout: float = 0.1,
        align_corners: bool = False,
        low_level_channels: int = 0,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.low_level: ConvBNReLU | None = None
        self.refine: nn.Module | None = None
        if low_level_channels:
            self.low_level = ConvBNReLU(in_channels[0], low_level_channels)
            self.refine = ConvBNReLU(channels + low_level_channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier: nn.Conv2d = Conv1x1(channels, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    @abstractmethod
    def context(self, features: Sequence[Tensor]) -> Tensor:
        """Features that have seen the whole image, (B, channels, h, w)."""

    def classify(self, x: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Logits of the context features ``x``."""
        logits: Tensor = self.classifier(self.dropout(self.refined(x, features)))
        return logits

    def refined(self, x: Tensor, features: Sequence[Tensor]) -> Tensor:
        """The context features with what the finest level adds: what is classified."""
        if self.low_level is not None:
            detail = self.low_level(features[0])
            x = torch.cat([resize(x, detail.shape[-2:], self.align_corners), detail], dim=1)
        return x if self.refine is None else self.refine(x)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.classify(self.context(features), features)

    def at(self, features: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
        """The prediction at ``size`` = (H, W)."""
        return resize(classes_together(self(features)), size, self.align_corners)

    def outputs(self, features: Sequence[Tensor]) -> Outputs:
        """The prediction with its side outputs."""
        return Outputs(self(features))


def concat_levels(features: Sequence[Tensor], levels: Sequence[int], align_corners: bool) -> Tensor:
    """The chosen levels side by side, each at the size of the first: (B, sum of their widths, h, w)."""
    size = features[levels[0]].shape[-2:]
    return torch.cat([resize(features[level], size, align_corners) for level in levels], dim=1)


class BlockHead(ContextHead):
    """reduce -> block -> project -> fuse -> classify: the skeleton of the one-block papers.

    x = CBR3(level); y = CBR3(block(x)); logits = classify(CBR3([level, y])), CBR3 a 3x3 convolution with BN and ReLU.

    Args:
        block: the context operator, (B, channels, h, w) -> the same shape.
        level: index of the backbone level it reads.
        concat_input: fuse the result with the level; without, logits = classify(y).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        block: nn.Module,
        *,
        channels: int = 512,
        level: int = -1,
        concat_input: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.level = level
        self.reduce = ConvBNReLU(in_channels[level], channels, 3)
        self.block = block
        self.project = ConvBNReLU(channels, channels, 3)
        self.fuse = ConvBNReLU(in_channels[level] + channels, channels, 3) if concat_input else None

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x = features[self.level]
        y: Tensor = self.project(self.block(self.reduce(x)))
        return y if self.fuse is None else self.fuse(torch.cat([x, y], dim=1))
