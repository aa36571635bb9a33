"""What published networks do otherwise than timm's networks of the same name."""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, Literal, TypedDict

import torch
from timm.models.hrnet import HighResolutionModule, HighResolutionNet
from timm.models.resnest import ResNestBottleneck
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.backbones.deformable import DeformableConv
from lightning_app.backbones.mobilenet import add_last_convolution, take_early_levels
from lightning_app.backbones.transformers import change_transformer
from lightning_app.util.errors import InputError, suggest


class Changes(TypedDict, total=False):
    """Differences from timm's network; each leaves the names of its weights alone.

    Attributes:
        stem_type: ResNet: "deep" is three 3x3 convolutions in place of one 7x7 (ResNetV1c).
        stem_width: ResNet: channels of a deep stem's first two convolutions.
        dilations: dilation of each stage, whatever the strides. In a ResNet the first block of a stage takes half, in
            a MobileNet all blocks take the whole.
        dilate_first: MobileNet: only the first block of each stage is dilated.
        last_convolution: MobileNet: the last level goes through the 1x1 convolution behind it.
        early_levels: MobileNetV3: each level but the last is the first block of its stage, not the last one.
        bn_eps: MobileNet: eps of every batch norm.
        shortcut_pool: ResNeSt: false takes the pooling out of the shortcuts of stages that do not stride.
        multi_grid: ResNet: dilation of each block of the last stage.
        conv2_dilation: ResNet-18 and -34: dilation of each block's second convolution.
        channels: ResNet: width of each stage's 3x3 convolutions.
        cardinality: ResNet: groups of each bottleneck's 3x3 convolution (ResNeXt).
        base_width: ResNet: width of such a group where a stage is 64 wide.
        stride_in_1x1: ResNet: a stage's stride is in its first bottleneck's first convolution, as in Caffe's models.
        deformable: ResNet: for each stage, whether its bottlenecks' 3x3 convolutions are deformable.
        upsample: HRNet: how a coarse branch is enlarged for a finer one.
        img_size: transformer: the image that its table of positions is for, pixels; [H, W] or one number.
        use_abs_pos_emb: BEiT: positions are added too, as in MAE.
        pad_patches: transformer: images, and in Twins levels, are padded at the bottom and the right to whole patches.
        pad_windows: Swin: maps are padded to whole windows before these are shifted, and never in smaller windows.
        any_size: images are taken as they are, and what fills no whole patch at the bottom and the right is not seen.
        mean, std: of each channel of images in 0..1, where the weights were trained with others than timm's.
        level_norm: "layer" or "group" (one group) normalises each level.
        norm_eps: eps of every layer norm, those of the levels too.
        positions: ViT: how the table of positions is resized, "bicubic" or "bilinear", without antialiasing.
        class_token: ViT: "none" leaves it out once positions are added; "concat" puts it beside each position of the
            levels, which doubles their channels; "absent" has none, and no position for it.
        patch_size, num_heads: ViT: pixels of a patch's side, and heads of each attention.
        patch_padding: ViT: zeros around the image in front of the patches' convolution, pixels.
        final_norm: ViT: the last block's output is normalised.
        patch_bias: ViT: false leaves out the bias of the patches' convolution.
        key_bias: BEiT: keys have a bias that learns, as in MAE.
        stage_norm: Twins: each stage's result is normalised before the next one takes it.
        mask_padding: Twins: positions that were padded at both sides are attended by one another only.
    """

    stem_type: str
    stem_width: int
    dilations: list[int]
    multi_grid: list[int]
    conv2_dilation: int
    channels: list[int]
    cardinality: int
    base_width: int
    stride_in_1x1: bool
    deformable: list[bool]
    dilate_first: bool
    last_convolution: bool
    early_levels: bool
    bn_eps: float
    shortcut_pool: bool
    upsample: Literal["nearest", "bilinear"]
    img_size: int | Sequence[int]
    use_abs_pos_emb: bool
    pad_patches: bool
    pad_windows: bool
    any_size: bool
    mean: Sequence[float]
    std: Sequence[float]
    level_norm: Literal["layer", "group"]
    norm_eps: float
    positions: Literal["bicubic", "bilinear"]
    class_token: Literal["none", "concat", "absent"]
    patch_size: int
    num_heads: int
    patch_padding: int
    final_norm: bool
    patch_bias: bool
    key_bias: bool
    stage_norm: bool
    mask_padding: bool


BUILT_IN = (
    "stem_type",
    "stem_width",
    "channels",
    "cardinality",
    "base_width",
    "bn_eps",
    "img_size",
    "use_abs_pos_emb",
    "patch_size",
    "num_heads",
)  # timm's own arguments; the others are made afterwards
ELSEWHERE = ("any_size", "level_norm", "norm_eps", "mean", "std")  # of the whole backbone
RESNET = ("dilations", "multi_grid", "conv2_dilation", "stride_in_1x1", "deformable")


def check_changes(changes: Mapping[str, Any]) -> None:
    """Raises InputError: a change that is not known."""
    for name in changes.keys() - Changes.__annotations__.keys():
        hint = suggest(name, Changes.__annotations__)
        raise InputError(f'Unknown change "{name}".{hint} Known: {", ".join(Changes.__annotations__)}')


def apply_changes(model: nn.Module, name: str, changes: Mapping[str, Any]) -> None:
    """Make those changes of ``model`` that timm cannot build.

    Raises:
        InputError: the network has nothing that could be so changed, or as many of them as there are values.
    """
    if isinstance(model, HighResolutionNet):
        _exchange_at_any_size(model, changes.get("upsample", "nearest"))
    elif "upsample" in changes:
        raise InputError(f"{name} has no branches to upsample: that change is HRNet's")
    left = {key: value for key, value in changes.items() if key not in ("upsample", *BUILT_IN, *ELSEWHERE)}
    left = change_transformer(model, left)
    if left.pop("last_convolution", False):
        add_last_convolution(model, name)
    if left.pop("early_levels", False):
        take_early_levels(model, name)
    if left.pop("shortcut_pool", True) is False:
        _without_shortcut_pool(model, name)
    if isinstance(getattr(model, "blocks", None), nn.Sequential) and "dilations" in left:
        _dilate_mobile(model, name, left.pop("dilations"), only_first=left.pop("dilate_first", False))
    if left:
        stages = _resnet_stages(model, name, left)
        _dilate(stages, name, left)
        if left.get("stride_in_1x1"):
            _stride_in_1x1(stages)
        if (deformable := left.get("deformable")) is not None:
            _deform(stages, name, deformable)


def residual_blocks(stage: nn.Module) -> list[BasicBlock | Bottleneck]:
    """The residual blocks of a stage of ResNet or HRNet, in order; none where it is built otherwise."""
    return [block for block in stage.modules() if isinstance(block, BasicBlock | Bottleneck)]


class ExchangeUnit(nn.Module):
    """HRNet's branches, then each of them the sum of all: y_i = ReLU(sum_j f_ij(x_j)), at any image size.

    Where j is coarser, f_ij enlarges by 2^(j - i) and then, as the published weights are used, once more to the size of
    x_i; timm stops at the first and so needs sizes that 32 divides.

    Shape: branches (B, C_i, h_i, w_i) -> the same; of the network's last unit those down to the last that is a level.
    """

    def __init__(self, module: HighResolutionModule, upsample: str) -> None:
        super().__init__()
        self.branches, self.fuse_layers = module.branches, module.fuse_layers
        self.upsample = upsample
        for fuse in self.fuse_layers.modules():
            if isinstance(fuse, nn.Upsample):
                fuse.mode = upsample

    def forward(self, branches: Sequence[Tensor]) -> list[Tensor]:
        branches = [branch(x) for branch, x in zip(self.branches, branches, strict=True)]
        fused = []
        for functions, like in zip(self.fuse_layers, branches, strict=False):  # of the last unit's, those that are used
            terms = [self._resize(f(x), like.shape[-2:]) for f, x in zip(functions, branches, strict=True)]
            fused.append(F.relu(reduce(torch.add, terms)))
        return fused

    def _resize(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        return x if x.shape[-2:] == size else F.interpolate(x, size, mode=self.upsample)


def _exchange_at_any_size(model: Any, upsample: str) -> None:
    if upsample not in ("nearest", "bilinear"):
        raise InputError(f'upsample is "{upsample}": it must be nearest or bilinear')
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if isinstance(module, HighResolutionModule):
                setattr(parent, name, ExchangeUnit(module, upsample))
    coarsest = max(index for index in model.feature_info.out_indices if isinstance(index, int))  # 0 is the stem
    model.stage4[-1].fuse_layers = model.stage4[-1].fuse_layers[: max(coarsest, 1)]


def _resnet_stages(model: nn.Module, name: str, made: Iterable[str]) -> list[list[BasicBlock | Bottleneck]]:
    """The residual blocks of each of the four stages."""
    stages = [residual_blocks(stage) for key, stage in model.named_children() if key.startswith("layer")]
    if len(stages) != 4 or isinstance(model, HighResolutionNet):
        of = "ResNet" if set(made) <= set(RESNET) else "network of their kind"
        raise InputError(f"{name} is no {of}, so {', '.join(sorted(made))} cannot be changed")
    if others := set(made) - set(RESNET):
        raise InputError(f"{name} has nothing that {', '.join(sorted(others))} could change")
    return stages


def _stride_in_1x1(stages: Sequence[Sequence[BasicBlock | Bottleneck]]) -> None:
    for block, *_ in stages:
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)


def _deform(stages: Sequence[Sequence[BasicBlock | Bottleneck]], name: str, deformable: Sequence[bool]) -> None:
    if len(deformable) != len(stages):
        raise InputError(f"deformable {list(deformable)} has {len(deformable)} values, but {name} has 4 stages")
    for blocks, deform in zip(stages, deformable, strict=True):
        for block in blocks if deform else ():
            if not isinstance(block, Bottleneck):
                raise InputError(f"{name} has no bottlenecks, whose 3x3 convolutions could be deformable")
            block.conv2 = DeformableConv(block.conv2)


def _dilate(stages: Sequence[Sequence[BasicBlock | Bottleneck]], name: str, changes: Mapping[str, Any]) -> None:
    dilations = changes.get("dilations")
    grid = changes.get("multi_grid")
    for key, values, count, of in (
        ("dilations", dilations, 4, "stages"),
        ("multi_grid", grid, len(stages[-1]), "blocks in the last stage"),
    ):
        if values is not None and len(values) != count:
            raise InputError(f"{key} {list(values)} has {len(values)} values, but {name} has {count} {of}")
    for i, blocks in enumerate(stages):
        if dilations is not None:
            for j, block in enumerate(blocks):
                _set_dilation(block, dilations[i] if j else max(dilations[i] // 2, 1))
        if grid is not None and i == 3:
            for block, dilation in zip(blocks, grid, strict=True):
                _set_dilation(block, dilation)
        if "conv2_dilation" in changes:
            for block in blocks:
                if not isinstance(block, BasicBlock):
                    raise InputError(f"{name} has bottlenecks, with one 3x3 convolution each: no conv2_dilation")
                _dilate_convolution(block.conv2, changes["conv2_dilation"])


def _set_dilation(block: BasicBlock | Bottleneck, dilation: int) -> None:
    for convolution in (block.conv1, block.conv2):
        if convolution.kernel_size != (1, 1):
            _dilate_convolution(convolution, dilation)


def _dilate_convolution(convolution: nn.Conv2d, dilation: int) -> None:
    convolution.dilation = (dilation, dilation)
    convolution.padding = (dilation, dilation)


def _dilate_mobile(model: nn.Module, name: str, dilations: Sequence[int], *, only_first: bool) -> None:
    """Dilate the depthwise convolutions of each stage of timm's MobileNets."""
    stages = model.get_submodule("blocks")
    assert isinstance(stages, nn.Sequential)
    if len(stages) != len(dilations):
        raise InputError(
            f"dilations {list(dilations)} has {len(dilations)} values, but {name} has {len(stages)} stages"
        )
    for stage, dilation in zip(stages, dilations, strict=True):
        for i, block in enumerate(stage.children()):
            convolution = getattr(block, "conv_dw", None)
            if isinstance(convolution, nn.Conv2d):
                own = dilation if i == 0 or not only_first else 1
                convolution.dilation = (own, own)
                if any(convolution.padding):  # timm's Conv2dSame pads by itself
                    pad = own * (convolution.kernel_size[0] - 1) // 2
                    convolution.padding = (pad, pad)


def _without_shortcut_pool(model: nn.Module, name: str) -> None:
    shortcuts = [block.downsample for block in model.modules() if isinstance(block, ResNestBottleneck)]
    if not shortcuts:
        raise InputError(f"{name} has no pools in its shortcuts: shortcut_pool is ResNeSt's")
    for shortcut in shortcuts:
        if isinstance(shortcut, nn.Sequential) and getattr(shortcut[0], "stride", 2) in (1, (1, 1)):
            shortcut[0] = nn.Identity()
