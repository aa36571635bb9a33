"""OpenMMLab's convolutional backbones as timm's."""

from collections.abc import Mapping
from typing import Any

import timm
from timm.models.hrnet import cfg_cls as timm_hrnets

from lightning_app.backbones.changes import Changes
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.names import BackboneRule, Names, Tensors, chosen, substitute
from lightning_app.weights.openmmlab.plugins import context_of, inside

OUTPUT_STRIDES = {(1, 2, 1, 1): 8, (1, 2, 2, 1): 16, (1, 2, 2, 2): 32}  # strides of a ResNet's stages
DILATIONS = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}  # that keep the resolution which the strides lose


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


def _resnest(config: Mapping[str, Any]) -> dict[str, Any]:
    depth, strides = config["depth"], tuple(config["strides"])
    name = {50: "resnest50d", 101: "resnest101e", 200: "resnest200e"}.get(depth)
    dilations = tuple(config.get("dilations", (1, 1, 1, 1)))
    if name is None or strides not in OUTPUT_STRIDES or dilations != DILATIONS[OUTPUT_STRIDES[strides]]:
        raise InputError(f"ResNeSt with depth {depth}, strides {list(strides)}, such dilations: no counterpart here")
    levels = [index + 1 for index in config.get("out_indices", (0, 1, 2, 3))]
    arguments = {"name": name, "output_stride": OUTPUT_STRIDES[strides], "out_indices": levels}
    return arguments | {"changes": {"shortcut_pool": False}}


def _mobilenet_v2(config: Mapping[str, Any]) -> dict[str, Any]:
    strides, factor = tuple(config["strides"]), config.get("widen_factor", 1.0)
    output_stride = {(1, 2, 2, 1, 1, 1, 1): 8, (1, 2, 2, 2, 1, 1, 1): 16, (1, 2, 2, 2, 1, 2, 1): 32}.get(strides)
    name = {0.5: "mobilenetv2_050", 1.0: "mobilenetv2_100", 1.4: "mobilenetv2_140"}.get(factor)
    if output_stride is None or name is None:
        raise InputError(f"MobileNetV2 with strides {list(strides)} and widen_factor {factor} has no counterpart here")
    levels = {0: 0, 1: 1, 2: 2, 4: 3, 6: 4}  # of the stages, which are timm's levels
    return {
        "name": name,
        "output_stride": output_stride,
        "out_indices": chosen(config, levels, (1, 2, 4, 6)),
        "changes": {"dilations": list(config.get("dilations", [1] * 7)), "dilate_first": True},
    }


def _mobilenet_v3(config: Mapping[str, Any]) -> dict[str, Any]:
    large = config["arch"] == "large"
    dilations = [1, 1, 1, 2, 2, 4, 1] if large else [1, 1, 2, 2, 4, 1]
    levels = {1: 0, 3: 1, 6: 2, 12: 3, 16: 4} if large else {0: 0, 1: 1, 3: 2, 8: 3, 12: 4}
    return {
        "name": f"tf_mobilenetv3_{config['arch']}_100",
        "output_stride": 8,
        "out_indices": chosen(config, levels, (1, 3, 16) if large else (0, 1, 12)),
        "changes": {"dilations": dilations},
    }


def _mobilenet_v3_names(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Numbered layers there, blocks in stages here."""
    lengths = (1, 2, 3, 4, 2, 3) if config["arch"] == "large" else (1, 2, 3, 2, 3)
    places = [(stage, block) for stage, length in enumerate(lengths) for block in range(length)]
    layers = {"layer0": ("conv_stem", "bn1")}
    made: Tensors = {}
    for name, tensor in tensors.items():
        layer, _, rest = name.partition(".")
        number = int(layer.removeprefix("layer"))
        if number == 0:
            convolution, norm = layers[layer]
            made[substitute(((r"conv\.", f"{convolution}."), (r"bn\.", f"{norm}.")), rest)] = tensor
            continue
        if number > len(places):  # the last one is a plain convolution
            last = (r"conv\.", f"blocks.{len(lengths)}.0.conv."), (r"bn\.", f"blocks.{len(lengths)}.0.bn1.")
            made[substitute(last, rest)] = tensor
            continue
        stage, block = places[number - 1]
        expands = f"{layer}.expand_conv.conv.weight" in tensors
        depthwise, linear = ("bn2", "bn3") if expands else ("bn1", "bn2")
        inside = (
            (r"expand_conv\.conv\.", "conv_pw."),
            (r"expand_conv\.bn\.", "bn1."),
            (r"depthwise_conv\.conv\.", "conv_dw."),
            (r"depthwise_conv\.bn\.", f"{depthwise}."),
            (r"linear_conv\.conv\.", "conv_pwl." if expands else "conv_pw."),
            (r"linear_conv\.bn\.", f"{linear}."),
            (r"se\.conv1\.conv\.", "se.conv_reduce."),
            (r"se\.conv2\.conv\.", "se.conv_expand."),
        )
        made[f"blocks.{stage}.{block}.{substitute(inside, rest)}"] = tensor
    return _model(made, config)


def _model(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    return {f"model.{name}": tensor for name, tensor in tensors.items()}


def _mobilenet_v2_names() -> Names:
    names: list[tuple[str, str]] = [(r"conv1\.conv\.", "model.conv_stem."), (r"conv1\.bn\.", "model.bn1.")]
    for layer in range(1, 8):  # conv.0, conv.1 ...: expand (not in the first), depthwise, project
        parts = ["dw", "pw"] if layer == 1 else ["pw", "dw", "pwl"]
        for i, part in enumerate(parts):
            there, here = rf"layer{layer}\.(\d+)\.conv\.{i}\.", rf"model.blocks.{layer - 1}.\1."
            names += [(rf"{there}conv\.", f"{here}conv_{part}."), (rf"{there}bn\.", f"{here}bn{i + 1}.")]
    return tuple(names)


CONVOLUTIONS = (
    (r"stem\.([0134])\.", r"model.conv1.\1."),
    (r"stem\.6\.", "model.conv1.6."),
    (r"stem\.7\.", "model.bn1."),
    (r"(layer\d\.\d+)\.context_block\.conv_mask\.", r"model.\1.se.mask."),
    (r"(layer\d\.\d+)\.context_block\.channel_(add|mul)_conv\.", r"model.\1.se.\2."),
    (r"(layer\d\.\d+)\.gen_attention_block\.", r"model.\1.aa.1."),
    (r"", "model."),
)  # of ResNetV1c and of blocks inside; everything else is called the same
RESNEST = frozenset({"depth", "strides", "dilations", "out_indices", "norm_cfg"})
RESNET = RESNEST | {"multi_grid", "stem_channels", "style", "base_channels", "plugins", "dcn", "stage_with_dcn"}
CONVS = {"num_stages": 4, "contract_dilation": True, "in_channels": 3, "deep_stem": False, "avg_down": False}


def _inside(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    return {inside(name): tensor for name, tensor in tensors.items()}


RULES: dict[str, BackboneRule] = {
    "ResNet": BackboneRule(_resnet, CONVOLUTIONS, RESNET, CONVS, finish=_inside),
    "ResNetV1c": BackboneRule(_resnet, CONVOLUTIONS, RESNET, CONVS, finish=_inside),
    "ResNeXt": BackboneRule(_resnet, CONVOLUTIONS, RESNET | {"groups", "base_width"}, CONVS, finish=_inside),
    "HRNet": BackboneRule(_hrnet, CONVOLUTIONS, frozenset({"extra", "norm_cfg"})),
    "ResNeSt": BackboneRule(
        _resnest,
        CONVOLUTIONS,
        RESNEST,
        CONVS | {"style": "pytorch", "stem_channels": 128, "radix": 2, "reduction_factor": 4, "avg_down_stride": True},
    ),
    "MobileNetV2": BackboneRule(
        _mobilenet_v2,
        _mobilenet_v2_names(),
        frozenset({"strides", "dilations", "widen_factor", "out_indices", "norm_cfg"}),
        {"act_cfg": {"type": "ReLU6"}, "conv_cfg": None},
    ),
    "MobileNetV3": BackboneRule(
        _mobilenet_v3,
        (),
        frozenset({"arch", "out_indices", "norm_cfg"}),
        {"reduction_factor": 1, "conv_cfg": None},
        finish=_mobilenet_v3_names,
    ),
}
