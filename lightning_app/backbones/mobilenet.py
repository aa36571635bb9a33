"""MobileNet's last convolution, which timm leaves out of the levels."""

import timm
from timm.models.efficientnet import EfficientNetFeatures
from torch import Tensor, nn

from lightning_app.util.errors import InputError


class WithLastConvolution(EfficientNetFeatures):  # type: ignore[misc]
    """The last level behind the 1x1 convolution with norm and activation that widens it."""

    def forward(self, x: Tensor) -> list[Tensor]:
        *finer, last = super().forward(x)
        return [*finer, self.bn2(self.conv_head(last))]


def add_last_convolution(model: nn.Module, name: str) -> None:
    """Let the last level go through the convolution behind it.

    Raises:
        InputError: the network has none, or its last stage is no level.
    """
    whole = timm.create_model(name) if isinstance(model, EfficientNetFeatures) else nn.Identity()
    convolution, norm = getattr(whole, "conv_head", None), getattr(whole, "bn2", None)
    if convolution is None or norm is None or len(model.blocks) not in model._stage_out_idx:  # type: ignore[operator,arg-type]
        raise InputError(f"{name} has no convolution behind its last level: last_convolution is MobileNet's")
    model.__class__ = WithLastConvolution
    model.conv_head, model.bn2 = convolution, norm
    model.feature_info.info[-1]["num_chs"] = convolution.out_channels  # type: ignore[union-attr,index]
