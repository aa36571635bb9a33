"""DeepLabV3: atrous spatial pyramid pooling. arXiv:1706.05587."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_app.blocks.deeplabv3 import AtrousPyramid
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("deeplabv3", paper="arXiv:1706.05587", year=2017)
class DeepLabV3(ContextHead):
    """Dilated convolutions beside the mean of the whole map: logits = classify(ASPP(level)).

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``level``.

    Args:
        dilations: one branch each; (1, 12, 24, 36) at output stride 8, (1, 6, 12, 18) at 16.
        level: index of the backbone level it reads.

    Reference: OpenMMLab's ASPPHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        dilations: Sequence[int] = (1, 12, 24, 36),
        level: int = -1,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.level = level
        self.pyramid = AtrousPyramid(in_channels[level], channels, dilations)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        context: Tensor = self.pyramid(features[self.level])
        return context
