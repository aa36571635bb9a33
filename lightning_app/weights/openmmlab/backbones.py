"""OpenMMLab's backbones as timm's."""

from collections.abc import Mapping
from typing import Any

import timm
from timm.models.hrnet import cfg_cls as timm_hrnets
from torch import Tensor

from lightning_app.backbones.changes import Changes
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.heads import set_norm, substitute
from lightning_app.weights.openmmlab.plugins import context_of, inside

NAMES = (
    (r"stem\.([0134])\.", r"conv1.\1."),
    (r"stem\.6\.", "conv1.6."),
    (r"stem\.7\.", "bn1."),
    (r"(layer\d\.\d+)\.context_block\.conv_mask\.", r"\1.se.mask."),
    (r"(layer\d\.\d+)\.context_block\.channel_(add|mul)_conv\.", r"\1.se.\2."),
    (r"(layer\d\.\d+)\.gen_attention_block\.", r"\1.aa.1."),
)  # of ResNetV1c and of blocks inside; everything else is called the same

OUTPUT_STRIDES = {(1, 2, 1, 1): 8, (1, 2, 2, 1): 16, (1, 2, 2, 2): 32}  # strides of a ResNet's stages
DILATIONS = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}  # that keep the resolution which the strides lose

RESNET = {"type", "depth", "strides", "dilations", "out_indices", "multi_grid", "stem_channels", "norm_cfg"}
RESNET |= {"style", "base_channels", "plugins", "dcn", "stage_with_dcn"}
RESNEXT = RESNET | {"groups", "base_width"}
FIXED = {"num_stages": 4, "contract_dilation": True, "in_channels": 3}
KINDS = {"ResNet": RESNET, "ResNetV1c": RESNET, "ResNeXt": RESNEXT, "HRNet": {"type", "extra", "norm_cfg"}}
IGNORED = {"init_cfg", "norm_eval", "pretrained", "frozen_stages", "with_cp", "zero_init_residual"}  # training only


def new_backbone(config: Mapping[str, Any]) -> TimmBackbone:
    """The backbone that an mmsegmentation config describes, freshly initialised.

    Raises:
        InputError: a backbone or an argument that has no counterpart here.
    """
    backbone = TimmBackbone(**backbone_arguments(config))
    set_norm(backbone, config)
    return backbone


def backbone_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of TimmBackbone that make it the backbone of a config.

    Raises:
        InputError: a backbone or an argument that has no counterpart here.
    """
    kind = config["type"]
    known = KINDS.get(kind)
    if known is None:
        raise InputError(f'OpenMMLab\'s backbone "{kind}" has no counterpart here: only {", ".join(KINDS)}')
    for key in config.keys() - known - IGNORED:
        if key not in FIXED or config[key] != FIXED[key]:
            raise InputError(f'{kind} has the argument "{key}" ({config[key]!r}): no counterpart here')
    return _hrnet(config) if kind == "HRNet" else _resnet(config)


def rename_backbone(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of OpenMMLab's backbone under timm's names, and those of blocks inside it under ours."""
    return {inside(substitute(NAMES, name)): tensor for name, tensor in state_dict.items()}


def _resnet(config: Mapping[str, Any]) -> dict[str, Any]:
    depth = config["depth"]
    strides = tuple(config.get("strides", (1, 2, 2, 2)))
    if depth not in (18, 34, 50, 101, 152) or strides not in OUTPUT_STRIDES:
        raise InputError(f"{config['type']} with depth {depth} and strides {list(strides)} has no counterpart here")
    output_stride = OUTPUT_STRIDES[strides]

    name = f"resnet{depth}"
    changes: Changes = {}
    if config["type"] == "ResNetV1c":
        if timm.is_model(f"{name}c"):
            name += "c"
        else:
            changes["stem_type"] = "deep"
        changes["stem_width"] = config.get("stem_channels", 64) // 2
    elif config.get("stem_channels", 64) != 64:
        raise InputError(
            f"{config['type']} with stem_channels={config['stem_channels']} has no counterpart here: only 64"
        )
    width = config.get("base_channels", 64)
    if width != 64:
        changes["channels"] = [width * 2**stage for stage in range(4)]
    if config["type"] == "ResNeXt":
        name = _resnext(name, config, changes)
    if config.get("style", "pytorch") == "caffe":
        changes["stride_in_1x1"] = True
    if config.get("dcn"):
        changes["deformable"] = _deformable(config)
    dilations = tuple(config.get("dilations", (1, 1, 1, 1)))
    if dilations != DILATIONS[output_stride]:
        changes["dilations"] = list(dilations)
    if config.get("multi_grid"):
        changes["multi_grid"] = list(config["multi_grid"])
    if depth < 50:
        changes["conv2_dilation"] = 1
    levels = [index + 1 for index in config.get("out_indices", (0, 1, 2, 3))]  # timm's level 0 is the stem
    arguments = {"name": name, "output_stride": output_stride, "out_indices": levels, "changes": {**changes}}
    return arguments | ({"context": context_of(config["plugins"])} if config.get("plugins") else {})


def _resnext(name: str, config: Mapping[str, Any], changes: Changes) -> str:
    """The name of a ResNeXt, or a ResNet's and the changes that make it one."""
    groups, width = config.get("groups", 1), config.get("base_width", 4)
    own = f"resnext{config['depth']}_{groups}x{width}d"
    if timm.is_model(own) and "channels" not in changes:
        return own
    changes["cardinality"] = groups
    changes["base_width"] = width * 64 // config.get("base_channels", 64)  # theirs counts from the first stage's width
    return name


def _deformable(config: Mapping[str, Any]) -> list[bool]:
    dcn = {key: value for key, value in config["dcn"].items() if key != "type"}
    if config["dcn"]["type"] != "DCN" or dcn not in ({}, {"deform_groups": 1, "fallback_on_stride": False}):
        raise InputError(f"dcn={config['dcn']!r} has no counterpart here: only DCN with one group of offsets")
    return [bool(deform) for deform in config["stage_with_dcn"]]


def _hrnet(config: Mapping[str, Any]) -> dict[str, Any]:
    stages = config["extra"]
    for name, known in timm_hrnets.items():
        if all(_same_stage(stages[f"stage{i}"], known[f"stage{i}"]) for i in range(1, 5)):
            return {"name": name, "changes": {"upsample": "bilinear"}}
    raise InputError(f"HRNet with these stages has no counterpart here, only {', '.join(timm_hrnets)}: {stages}")


def _same_stage(theirs: Mapping[str, Any], timms: Mapping[str, Any]) -> bool:
    keys = ("num_modules", "num_branches", "num_blocks", "num_channels")
    return all(theirs[key] == (list(value) if isinstance(value := timms[key], tuple) else value) for key in keys)
