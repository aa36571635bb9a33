"""ISNet: image-level and semantic-level context. arXiv:2108.12382."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, resize
from lightning_app.blocks.isnet import ImageContext, SemanticContext
from lightning_app.heads.base import Auxiliary, ContextHead, Outputs
from lightning_app.registry import HEADS


@HEADS.register("isnet", paper="arXiv:2108.12382", year=2021)
class ISNet(ContextHead):
    """Context from the whole image, and from the positions of each class that a first segmentation finds.

    x = CBR3(level); i = image context of x, l = classify'(CBR1(x)), s = semantic context of x, l and i;
    logits = classify(CBR3([up(s), CBR1(finest)])), or classify(s) without a shortcut. The side output is l.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the finest level, or of ``level`` without a
    shortcut.

    Args:
        inner_channels: width of queries, keys and values.
        shortcut_channels: width of what the finest level adds; 0 = nothing.
        level: index of the backbone level it reads.
        first_weight: weight of the first segmentation's loss.

    Reference: OpenMMLab's ISNetHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        inner_channels: int = 256,
        shortcut_channels: int = 48,
        level: int = -1,
        first_weight: float = 0.4,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.level, self.first_weight = level, first_weight
        self.reduce = ConvBNReLU(in_channels[level], channels, 3)
        self.image, self.semantic = ImageContext(channels, inner_channels), SemanticContext(channels, inner_channels)
        self.first = nn.Sequential(ConvBNReLU(channels, channels), nn.Dropout2d(self.dropout.p))
        self.first_classifier = Conv1x1(channels, num_classes)
        self.shortcut: ConvBNReLU | None = None
        self.fuse: ConvBNReLU | None = None
        if shortcut_channels:
            self.shortcut = ConvBNReLU(in_channels[0], shortcut_channels)
            self.fuse = ConvBNReLU(channels + shortcut_channels, channels, 3)

    def both(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The context features and the first segmentation."""
        x = self.reduce(features[self.level])
        image = self.image(x)
        first = self.first_classifier(self.first(x))
        y = self.semantic(x, first, image)
        if self.shortcut is not None and self.fuse is not None:
            detail = self.shortcut(features[0])
            y = self.fuse(torch.cat([resize(y, detail.shape[-2:], self.align_corners), detail], dim=1))
        return y, first

    def context(self, features: Sequence[Tensor]) -> Tensor:
        return self.both(features)[0]

    def outputs(self, features: Sequence[Tensor]) -> Outputs:
        x, first = self.both(features)
        return Outputs(self.classify(x, features), (Auxiliary(first, self.first_weight),))
