"""SETR: convolutions and enlarging behind a plain transformer, naive or progressive. arXiv:2012.15840."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("setr", paper="arXiv:2012.15840", year=2021)
class SETR(ContextHead):
    """A plain transformer's last level, normalised, convolved and enlarged step by step (SETR-PUP).

    y = up(CBR(...up(CBR(LN(x))))); logits = classify(y). The naive form is one step: ``num_convs=1, kernel_size=1,
    scale=4``.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, H, W), H = scale^num_convs h of ``level``.

    Args:
        num_convs: steps.
        kernel_size: of each step's convolution.
        scale: by how much each step enlarges.
        level: index of the backbone level it reads.

    Reference: OpenMMLab's SETRUPHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        num_convs: int = 4,
        kernel_size: int = 3,
        scale: int = 2,
        level: int = -1,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.level, self.scale = level, scale
        self.norm = nn.LayerNorm(in_channels[level], eps=1e-6)
        widths = [in_channels[level]] + [channels] * (num_convs - 1)
        self.convs = nn.ModuleList(ConvBNReLU(width, channels, kernel_size) for width in widths)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x: Tensor = self.norm(features[self.level].movedim(1, -1)).movedim(-1, 1)
        for conv in self.convs:
            x = conv(x)
            x = F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=self.align_corners)
        return x
