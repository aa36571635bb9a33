"""DeepLabV3: atrous spatial pyramid pooling. arXiv:1706.05587."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.blocks.deeplabv3 import AtrousPyramid
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS


@HEADS.register("deeplabv3", paper="arXiv:1706.05587", year=2017)
class DeepLabV3(ContextHead):
    """Dilated convolutions beside the mean of the whole map: logits = classify(ASPP(level)).

    With ``refine``, logits = classify(CBR3(ASPP(level))).

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``level``.

    Args:
        dilations: one branch each; (1, 12, 24, 36) at output stride 8, (1, 6, 12, 18) at 16.
        level: index of the backbone level it reads.
        fuse_kernel: of the convolution that fuses the branches.
        refine: one more convolution in front of the classifier, where ``low_level_channels`` make none. Torchvision's
            weights have it, and a ``fuse_kernel`` of 1.

    Reference: OpenMMLab's ASPPHead; torchvision's DeepLabHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        dilations: Sequence[int] = (1, 12, 24, 36),
        level: int = -1,
        fuse_kernel: int = 3,
        refine: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.level = level
        self.pyramid = AtrousPyramid(in_channels[level], channels, dilations, fuse_kernel=fuse_kernel)
        if refine and self.refine is None:
            self.refine = ConvBNReLU(channels, channels, 3)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        context: Tensor = self.pyramid(features[self.level])
        return context
