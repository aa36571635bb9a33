"""OCRNet: object-contextual representations. arXiv:1909.11065."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_app.blocks._layers import ConvBNReLU, resize
from lightning_app.blocks.ocrnet import ObjectContext
from lightning_app.heads.base import Auxiliary, ContextHead, Outputs, concat_levels
from lightning_app.heads.fcn import FCN
from lightning_app.registry import HEADS
from lightning_app.util.errors import InputError


@HEADS.register("ocrnet", paper="arXiv:1909.11065", year=2020)
class OCRNet(ContextHead):
    """Coarse to fine: a first segmentation gathers one vector per class, which every position then asks.

    l = FCN(coarse levels), f = CBR3(levels), logits = classify(OCR(f, l)). The side output is l; the gradient flows
    into it from both.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``levels[0]``.

    Args:
        key_channels: width of query, key and value.
        levels: backbone levels it reads, resized to the first of them and concatenated; all four for HRNet.
        coarse_channels: width of the coarse head; 0 = none of its own, the logits are always given.
        coarse_kernel_size: its kernel; 1 for HRNet.
        coarse_levels: the levels that it reads; all four for HRNet.
        coarse_weight: weight of its loss.

    Reference: OpenMMLab's OCRHead; HRNet-OCR.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        key_channels: int = 256,
        levels: Sequence[int] = (-1,),
        coarse_channels: int = 256,
        coarse_kernel_size: int = 3,
        coarse_levels: Sequence[int] = (-2,),
        coarse_weight: float = 0.4,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.levels, self.coarse_weight = tuple(levels), coarse_weight
        self.coarse: FCN | None = None
        if coarse_channels:
            self.coarse = FCN(
                in_channels,
                num_classes,
                channels=coarse_channels,
                num_convs=1,
                kernel_size=coarse_kernel_size,
                concat_input=False,
                levels=coarse_levels,
                dropout=self.dropout.p,
                align_corners=self.align_corners,
            )
        self.reduce = ConvBNReLU(sum(in_channels[level] for level in self.levels), channels, 3)
        self.block = ObjectContext(channels, key_channels, regions=0)

    def context(self, features: Sequence[Tensor], coarse: Tensor | None = None) -> Tensor:
        x = self.reduce(concat_levels(features, self.levels, self.align_corners))
        regions = self.coarse_logits(features) if coarse is None else coarse
        context: Tensor = self.block(x, resize(regions, x.shape[-2:], self.align_corners))
        return context

    def coarse_logits(self, features: Sequence[Tensor]) -> Tensor:
        """The first segmentation (B, num_classes, h, w).

        Raises:
            InputError: the head has no coarse head of its own.
        """
        if self.coarse is None:
            raise InputError("OCRNet with coarse_channels=0 has no coarse head: give head(features, coarse=logits)")
        logits: Tensor = self.coarse(features)
        return logits

    def forward(self, features: Sequence[Tensor], coarse: Tensor | None = None) -> Tensor:
        return self.classify(self.context(features, coarse), features)

    def outputs(self, features: Sequence[Tensor]) -> Outputs:
        coarse = self.coarse_logits(features)
        return Outputs(self(features, coarse), (Auxiliary(coarse, self.coarse_weight),))
