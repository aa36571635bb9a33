"""ViTPose's simple decoder. arXiv:2204.12484."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import resize
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("vitpose", paper="arXiv:2204.12484", year=2022)
class ViTPose(ContextHead):
    """A level enlarged and classified by one 3x3 convolution: logits = conv3(up(ReLU(x))).

    Its other decoder, with two deconvolutions, is ``SimpleBaseline(kernels=(4, 4))``.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, scale h, scale w) of the level read.

    Args:
        scale: how many times as large, bilinearly.
        level: index of the backbone level it reads.

    Reference: mmpose's HeatmapHead behind its FeatureMapProcessor.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        scale: int = 4,
        level: int = -1,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        width = in_channels[level]
        super().__init__(in_channels, num_classes, width, dropout=dropout, **options)
        self.scale, self.level = scale, level
        classifier = nn.Conv2d(width, num_classes, 3, padding=1)
        nn.init.normal_(classifier.weight, std=0.001)
        self.classifier = classifier

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x = F.relu(features[self.level])
        return resize(x, (self.scale * x.shape[-2], self.scale * x.shape[-1]), self.align_corners)
