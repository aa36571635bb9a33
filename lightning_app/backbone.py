"""Backbones: an image in, a list of feature levels out."""

import difflib
import math
from abc import ABC, abstractmethod

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.func import functional_call

from lightning_app.errors import InputError

OUTPUT_STRIDES = (8, 16, 32)


class Backbone(nn.Module, ABC):
    """What heads and the segmentor need to know of a backbone.

    Shape: normalised images (B, in_channels, H, W) -> levels (B, channels[i], h_i, w_i), finest first.

    Attributes:
        channels: width of each level.
        reductions: image pixels per level pixel, along one side.
        mean: per-channel mean of images in 0..1, to normalise with.
        std: per-channel standard deviation likewise.
        size_multiple: H and W must be multiples of this; the segmentor pads up to it.
    """

    channels: list[int]
    reductions: list[int]
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    size_multiple: int = 1

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]: ...


class TimmBackbone(Backbone):
    """Feature levels of any timm model.

    Convolutional and hierarchical models give their levels from stride 4 on; plain vision transformers four evenly
    spaced depths.

    Args:
        name: timm's name of the model, such as resnet50 or vit_small_patch16_dinov3.
        output_stride: 8, 16 or 32: the later stages dilate instead of striding further; null is the model's own.
        pretrained: fetch timm's weights for it.
        in_channels: channels of the images.
        out_indices: which of timm's feature levels; stages behind the last one are cut off.
        drop_path_rate: stochastic depth; null is the model's own.

    Raises:
        InputError: unknown name, a stride that the model cannot have, weights that cannot be fetched.
    """

    def __init__(
        self,
        name: str = "resnet50",
        output_stride: int | None = None,
        pretrained: bool = False,
        in_channels: int = 3,
        out_indices: list[int] | None = None,
        drop_path_rate: float | None = None,
    ) -> None:
        super().__init__()
        _check_name(name)
        self.name = name
        options = {"output_stride": output_stride, "drop_path_rate": drop_path_rate, "out_indices": out_indices}
        options = {key: value for key, value in options.items() if value is not None} | {"in_chans": in_channels}
        if out_indices is None:
            options["out_indices"] = _default_levels(name)
        if output_stride is not None and not _can_stride(name, output_stride):
            strides = [str(stride) for stride in OUTPUT_STRIDES if _can_stride(name, stride)]
            can = f"it can have {', '.join(strides)}" if strides else "it has a fixed stride: leave output_stride null"
            raise InputError(f"{name} cannot have output_stride {output_stride}; {can}")
        try:
            self.model = _create(name, pretrained=pretrained, **options)
        except OSError as error:
            raise InputError(
                f"Cannot fetch the pretrained weights of {name} ({type(error).__name__}: no connection?); "
                "set pretrained: false, or put them in timm's cache (HF_HOME) first"
            ) from error

        self.channels = list(self.model.feature_info.channels())
        self.reductions = list(self.model.feature_info.reduction())
        self.mean, self.std = _statistics(self.model.pretrained_cfg, in_channels)
        self.nhwc = getattr(self.model, "output_fmt", None) == "NHWC"
        self.size_multiple = self._find_size_multiple(in_channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        levels: list[Tensor] = self.model(images)
        return [level.permute(0, 3, 1, 2) for level in levels] if self.nhwc else list(levels)

    def _find_size_multiple(self, in_channels: int) -> int:
        """1 where an odd-sized image gives levels of ceil(size / reduction), else the coarsest reduction."""
        coarsest = max(self.reductions)
        size = (3 * coarsest + 1, 4 * coarsest + 1)
        self.model.eval()
        try:
            with torch.no_grad():
                tensors = {key: value.to("meta") for key, value in self.state_dict().items()}
                levels = functional_call(self, tensors, torch.empty(1, in_channels, *size, device="meta"))
        except (AssertionError, RuntimeError, ValueError):
            return coarsest
        finally:
            self.model.train()
        expected = [tuple(math.ceil(side / reduction) for side in size) for reduction in self.reductions]
        return 1 if [tuple(level.shape[-2:]) for level in levels] == expected else coarsest


def _check_name(name: str) -> None:
    model = name.partition(".")[0]
    if not timm.is_model(model):
        close = difflib.get_close_matches(model, timm.list_models(), n=3)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise InputError(f'Unknown timm model "{name}".{hint}')


def _create(name: str, **options: object) -> nn.Module:
    try:  # transformers with position embeddings take any size only when told to
        return timm.create_model(name, features_only=True, dynamic_img_size=True, **options)
    except TypeError:
        return timm.create_model(name, features_only=True, **options)


def _can_stride(name: str, output_stride: int) -> bool:
    try:
        with torch.device("meta"):
            model = _create(name, output_stride=output_stride)
    except (AssertionError, TypeError, ValueError, NotImplementedError):
        return False
    return bool(max(model.feature_info.reduction()) == output_stride)


def _default_levels(name: str) -> list[int]:
    with torch.device("meta"):
        info = _create(name).feature_info.info
    reductions = [level["reduction"] for level in info]
    if len(set(reductions)) == 1:
        depth = len(reductions)
        return [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
    return [index for index, reduction in enumerate(reductions) if reduction >= 4]


def _statistics(config: dict[str, tuple[float, ...]], in_channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if len(mean) == in_channels:
        return mean, std
    return (sum(mean) / len(mean),) * in_channels, (sum(std) / len(std),) * in_channels
