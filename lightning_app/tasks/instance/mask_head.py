"""The mask of a box: convolutions, twice the size, and a map for each class."""

from collections import OrderedDict
from typing import Any, Literal

from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from lightning_app.blocks.carafe import CARAFEUpsample

DEPTH = 4
Upsample = Literal["deconv", "carafe"]


class MaskHead(nn.Module):
    """Mask R-CNN's: four 3x3 convolutions with ReLU, upsampling, and a 1x1 convolution to a map for each class.

    Upsampling is a transposed convolution with ReLU (torchvision's), or CARAFE without one.

    Shape: (N, in_channels, h, w) -> logits (N, num_maps, 2 h, 2 w).

    Args:
        num_maps: classes, and where training needs it one in front for the background.
        carafe: arguments of ``CARAFEUpsample``.

    Papers: https://arxiv.org/abs/1703.06870, https://arxiv.org/abs/1905.02188.
    """

    def __init__(
        self,
        in_channels: int,
        num_maps: int,
        *,
        channels: int = 256,
        depth: int = DEPTH,
        upsample: Upsample = "deconv",
        **carafe: Any,
    ) -> None:
        super().__init__()
        self.convs = MaskRCNNHeads(in_channels, (channels,) * depth, dilation=1)
        self.predictor = MaskRCNNPredictor(channels, channels, num_maps)
        if upsample == "carafe":
            layers = {"carafe": CARAFEUpsample(channels, **carafe), "mask_fcn_logits": self.predictor.mask_fcn_logits}
            self.predictor = nn.Sequential(OrderedDict(layers))

    def forward(self, regions: Tensor) -> Tensor:
        logits: Tensor = self.predictor(self.convs(regions))
        return logits
