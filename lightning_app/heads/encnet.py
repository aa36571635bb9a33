"""EncNet: context encoding. arXiv:1803.08904."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import ConvBNReLU, resize
from lightning_app.blocks.encnet import ContextEncoding
from lightning_app.heads.base import Auxiliary, ContextHead, Outputs
from lightning_app.registry import HEADS


@HEADS.register("encnet", paper="arXiv:1803.08904", year=2018)
class EncNet(ContextHead):
    """An encoding of the whole map gates its channels, and learns which classes are present.

    f = CBR3(x), with ``lateral_levels`` f = CBR3([f, up(CBR1(x_i))...]); logits = classify(Encoding(f)). The side
    output says from the encoding which classes are in the image: (B, num_classes) logits.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``level``.

    Args:
        codes: code words.
        presence_weight: weight of the presence loss; 0 = without that output.
        lateral_levels: finer levels that are joined in.
        level: index of the backbone level it reads.

    Reference: OpenMMLab's EncHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        codes: int = 32,
        presence_weight: float = 0.2,
        lateral_levels: Sequence[int] = (),
        level: int = -1,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.level, self.lateral_levels, self.presence_weight = level, tuple(lateral_levels), presence_weight
        self.reduce = ConvBNReLU(in_channels[level], channels, 3)
        self.laterals = nn.ModuleList(ConvBNReLU(in_channels[i], channels) for i in self.lateral_levels)
        if lateral_levels:
            self.fuse = ConvBNReLU((len(self.laterals) + 1) * channels, channels, 3)
        self.block = ContextEncoding(channels, codes)
        self.presence = nn.Linear(channels, num_classes) if presence_weight else None

    def joined(self, features: Sequence[Tensor]) -> Tensor:
        """The reduced level, with the lateral ones where there are any: (B, channels, h, w)."""
        x: Tensor = self.reduce(features[self.level])
        if not self.lateral_levels:
            return x
        laterals = [
            resize(convolve(features[i]), x.shape[-2:], self.align_corners)
            for i, convolve in zip(self.lateral_levels, self.laterals, strict=True)
        ]
        fused: Tensor = self.fuse(torch.cat([x, *laterals], dim=1))
        return fused

    def context(self, features: Sequence[Tensor]) -> Tensor:
        context: Tensor = self.block(self.joined(features))
        return context

    def outputs(self, features: Sequence[Tensor]) -> Outputs:
        x = self.joined(features)
        encoding = self.block.encode(x)
        logits = self.classify(self.block.apply_gate(x, encoding), features)
        if self.presence is None:
            return Outputs(logits)
        return Outputs(logits, (Auxiliary(self.presence(encoding), self.presence_weight, "presence"),))
