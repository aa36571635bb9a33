"""Levels of MobileNets that timm does not give."""

import timm
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
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


class WithEarlyLevels(MobileNetV3Features):  # type: ignore[misc]
    """Each level but the last is what the first block of its stage gives, where the map is first so small."""

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.act1(self.bn1(self.conv_stem(x)))
        levels = []
        for number, (first, *others) in enumerate(self.blocks, start=1):
            x = first(x)
            early, last = x, number == max(self._stage_out_idx)
            for block in others:
                x = block(x)
            if number in self._stage_out_idx:
                levels.append(x if last else early)
        return levels


def take_early_levels(model: nn.Module, name: str) -> None:
    """Let each level but the last come from the first block of its stage.

    Raises:
        InputError: the network is no MobileNetV3.
    """
    if not isinstance(model, MobileNetV3Features):
        raise InputError(f"{name} has no stages whose first blocks could be levels: early_levels is MobileNetV3's")
    model.__class__ = WithEarlyLevels
