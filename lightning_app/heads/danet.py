"""Dual attention network. arXiv:1809.02983."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU
from lightning_app.blocks.danet import ChannelAttention, PositionAttention
from lightning_app.heads.base import Auxiliary, ContextHead, Outputs
from lightning_app.registry import HEADS


@HEADS.register("danet", paper="arXiv:1809.02983", year=2019)
class DANet(ContextHead):
    """Attention over positions and over channels, side by side.

    p = CBR3(PAM(CBR3(x))), c = CBR3(CAM(CBR3(x))); logits = classify(p + c), side outputs from p and from c.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        key_channels: width of query and key in the position attention.
        level: index of the backbone level it reads.

    Reference: OpenMMLab's DAHead and github.com/junfu1115/DANet, which agree.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        key_channels: int = 64,
        level: int = -1,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.level = level

        def branch(block: nn.Module) -> nn.Sequential:
            return nn.Sequential(ConvBNReLU(in_channels[level], channels, 3), block, ConvBNReLU(channels, channels, 3))

        self.pam = branch(PositionAttention(channels, key_channels=key_channels))
        self.cam = branch(ChannelAttention(channels))
        self.pam_classifier = Conv1x1(channels, num_classes)
        self.cam_classifier = Conv1x1(channels, num_classes)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x = features[self.level]
        fused: Tensor = self.pam(x) + self.cam(x)
        return fused

    def outputs(self, features: Sequence[Tensor]) -> Outputs:
        x = features[self.level]
        pam, cam = self.pam(x), self.cam(x)
        side = (self.pam_classifier(self.dropout(pam)), self.cam_classifier(self.dropout(cam)))
        return Outputs(self.classify(pam + cam, features), tuple(Auxiliary(logits, 1.0) for logits in side))
