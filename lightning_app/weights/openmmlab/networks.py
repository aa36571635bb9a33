"""OpenMMLab's ICNet and BiSeNetV1, networks around a ResNet, as ours."""

from collections.abc import Mapping
from typing import Any

import torch

from lightning_app.backbones.bisenet import BiSeNetV1
from lightning_app.backbones.icnet import ICNet
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab import convolutional
from lightning_app.weights.openmmlab.names import BackboneRule, Tensors, substitute


def _inner(config: Mapping[str, Any], output_stride: int) -> dict[str, Any]:
    """Name and changes of the ResNet inside."""
    inner = config["backbone_cfg"]
    if inner["type"] not in ("ResNet", "ResNetV1c"):
        raise InputError(f"{config['type']} around a {inner['type']} has no counterpart here, only around a ResNet")
    arguments = convolutional.RULES[inner["type"]].build(inner)
    if arguments["output_stride"] != output_stride:
        raise InputError(f"{config['type']} around a ResNet of stride {arguments['output_stride']} has none here")
    return {"name": arguments["name"], "changes": arguments["changes"]}


def _bisenet(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_inner(config, 32),
        "channels": config.get("context_channels", (128, 256, 512))[0],
        "detail_channels": list(config.get("spatial_channels", (64, 64, 64, 128))),
        "out_channels": config.get("out_channels", 256),
    }


def _icnet(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_inner(config, 8),
        "light_channels": config.get("light_branch_middle_channels", 32),
        "pyramid_channels": config.get("psp_out_channels", 512),
        "out_channels": list(config.get("out_channels", (64, 256, 256))),
        "scales": list(config.get("pool_scales", (1, 2, 3, 6))),
        "align_corners": config.get("align_corners", False),
    }


def _of_resnet(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """The ResNet's own names; and in ICNet, whose pyramid is fused as [pools, x], as [x, pools]."""
    inner = convolutional.RULES[config["backbone_cfg"]["type"]].names
    made: Tensors = {}
    for name, tensor in tensors.items():
        if name.startswith("resnet."):
            made[f"resnet.{substitute(inner, name.removeprefix('resnet.'))}"] = tensor
        elif name == "pyramid.fuse.conv.weight":
            width = config.get("layer_channels", (512, 2048))[1]
            made[name] = torch.cat([tensor[:, -width:], tensor[:, :-width]], dim=1)
        else:
            made[name] = tensor
    return made


SHARED = frozenset({"backbone_cfg", "norm_cfg", "out_channels"})
FIXED = {"in_channels": 3, "act_cfg": {"type": "ReLU"}, "conv_cfg": None}
RULES: dict[str, BackboneRule] = {
    "BiSeNetV1": BackboneRule(
        _bisenet,
        (
            (r"context_path\.backbone\.", "resnet."),
            (r"context_path\.arm(16|32)\.conv_layer\.", r"refine\1.0."),
            (r"context_path\.arm(16|32)\.atten_conv_layer\.1\.", r"refine\1.1.gate."),
            (r"context_path\.conv_head(16|32)\.", r"head\1."),
            (r"context_path\.gap_conv\.1\.", "whole."),
            *((rf"spatial_path\.layer{i + 1}\.", f"detail.{i}.") for i in range(4)),
            (r"ffm\.conv1\.", "fuse."),
            (r"ffm\.conv_atten\.0\.", "gate.gate."),
        ),
        SHARED | {"context_channels", "spatial_channels"},
        FIXED | {"align_corners": False, "out_indices": [0, 1, 2]},
        cls=BiSeNetV1,
        finish=_of_resnet,
    ),
    "ICNet": BackboneRule(
        _icnet,
        (
            (r"backbone\.", "resnet."),
            (r"psp_modules\.(\d+)\.1\.", r"pyramid.branches.\1."),
            (r"psp_bottleneck\.", "pyramid.fuse."),
            (r"conv_sub1\.", "light."),
            (r"conv_sub2\.", "middle."),
            (r"conv_sub4\.", "deep."),
        ),
        SHARED | {"layer_channels", "light_branch_middle_channels", "psp_out_channels", "pool_scales", "align_corners"},
        FIXED,
        cls=ICNet,
        finish=_of_resnet,
    ),
}
