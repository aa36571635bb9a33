"""mmpose's backbones as timm's. Their defaults are other than mmsegmentation's: one level, mostly the last."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import timm
import torch
from timm.models.hrnet import cfg_cls as timm_hrnets

from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab import transformers
from lightning_app.weights.openmmlab.names import BackboneRule, Names, Tensors

LAST = 4  # timm's number of a ResNet's last level; 0 is the stem
RESNESTS = {50: "resnest50d", 101: "resnest101e", 200: "resnest200e", 269: "resnest269e"}
VITS = {  # width -> timm's name, of patches of 16 pixels; mmpretrain's names of the same
    384: "vit_small_patch16_224",
    768: "vit_base_patch16_224",
    1024: "vit_large_patch16_224",
    1280: "vit_huge_patch14_224",
}
ARCHITECTURES = {
    "base": {"embed_dims": 768, "num_layers": 12, "num_heads": 12, "feedforward_channels": 3072},
    "large": {"embed_dims": 1024, "num_layers": 24, "num_heads": 16, "feedforward_channels": 4096},
    "huge": {"embed_dims": 1280, "num_layers": 32, "num_heads": 16, "feedforward_channels": 5120},
}
PVTS = {(2, 2, 2, 2): "pvt_v2_b1", (3, 4, 6, 3): "pvt_v2_b2", (3, 4, 18, 3): "pvt_v2_b3", (3, 8, 27, 3): "pvt_v2_b4"}
VGG16 = (0, 1, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16)  # its convolutions; what lies between are pools


def _only_last(config: Mapping[str, Any], last: int) -> None:
    indices = config.get("out_indices", (last,))
    if list(indices if isinstance(indices, Sequence) else [indices]) != [last]:
        raise InputError(f"{config['type']} with out_indices {list(indices)} has no counterpart here: only [{last}]")


def _of_depth(config: Mapping[str, Any], names: Mapping[int, str]) -> str:
    if (depth := config["depth"]) not in names:
        known = ", ".join(map(str, names))
        raise InputError(f"{config['type']} with depth {depth} has no counterpart here: only {known}")
    _only_last(config, 3)
    return names[depth]


def _resnet(config: Mapping[str, Any]) -> dict[str, Any]:
    ending = "d" if config["type"] == "ResNetV1d" else ""
    beginning = "seresnet" if config["type"] == "SEResNet" else "resnet"
    names = {depth: f"{beginning}{depth}{ending}" for depth in (18, 34, 50, 101, 152)}
    return {"name": _of_depth(config, names), "out_indices": [LAST]}


def _resnext(config: Mapping[str, Any]) -> dict[str, Any]:
    name = _of_depth(config, {depth: f"resnext{depth}_32x4d" for depth in (50, 101, 152)})
    if timm.is_model(name):
        return {"name": name, "out_indices": [LAST]}
    changes = {"cardinality": 32, "base_width": 4}
    return {"name": f"resnet{config['depth']}", "out_indices": [LAST], "changes": changes}


def _resnest(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": _of_depth(config, RESNESTS), "out_indices": [LAST], "changes": {"stem_width": 32}}


def _hrnet(config: Mapping[str, Any]) -> dict[str, Any]:
    """The finest branch, and so of the last fusion what leads there."""
    stages = config["extra"]
    for name, known in timm_hrnets.items():
        if all(_same_stage(stages[f"stage{i}"], known[f"stage{i}"]) for i in range(1, 5)):
            return {"name": name, "out_indices": [1]}
    raise InputError(f"HRNet with these stages has no counterpart here, only {', '.join(timm_hrnets)}: {stages}")


def _same_stage(theirs: Mapping[str, Any], timms: Mapping[str, Any]) -> bool:
    if theirs.get("multiscale_output", False):
        return False
    keys = ("num_modules", "num_branches", "num_blocks", "num_channels")
    return all(theirs[key] == (list(value) if isinstance(value := timms[key], tuple) else value) for key in keys)


def _mobilenet_v2(config: Mapping[str, Any]) -> dict[str, Any]:
    _only_last(config, 7)
    name = {0.5: "mobilenetv2_050", 1.0: "mobilenetv2_100", 1.4: "mobilenetv2_140"}.get(config.get("widen_factor", 1.0))
    if name is None:
        raise InputError(f"MobileNetV2 with widen_factor {config['widen_factor']} has no counterpart here")
    return {"name": name, "out_indices": [4], "changes": {"last_convolution": True}}


def _mobilenet_names() -> Names:
    names: list[tuple[str, str]] = []
    for there, here, norm in (("conv1", "conv_stem", "bn1"), ("conv2", "conv_head", "bn2")):
        names += [(rf"{there}\.conv\.", f"model.{here}."), (rf"{there}\.bn\.", f"model.{norm}.")]
    for layer in range(1, 8):  # conv.0, conv.1 ...: expand (not in the first), depthwise, project
        for i, part in enumerate(["dw", "pw"] if layer == 1 else ["pw", "dw", "pwl"]):
            there, here = rf"layer{layer}\.(\d+)\.conv\.{i}\.", rf"model.blocks.{layer - 1}.\1."
            names += [(rf"{there}conv\.", f"{here}conv_{part}."), (rf"{there}bn\.", f"{here}bn{i + 1}.")]
    return tuple(names)


def _vgg(config: Mapping[str, Any]) -> dict[str, Any]:
    if config["depth"] != 16 or (config.get("norm_cfg") or {}).get("type") != "BN":
        raise InputError("VGG has a counterpart here with depth 16 and norm_cfg BN alone")
    return {"name": "vgg16_bn", "out_indices": [5]}


def _vgg_names() -> Names:
    """Their layers count a convolution with norm and activation as one, timm's as three."""
    names: list[tuple[str, str]] = []
    for number, layer in enumerate(VGG16):
        first = 3 * number + (layer - number)
        names.append((rf"features\.{layer}\.conv\.", f"model.features_{first}."))
        names.append((rf"features\.{layer}\.bn\.", f"model.features_{first + 1}."))
    return tuple(names)


def _vit(config: Mapping[str, Any]) -> dict[str, Any]:
    given = config["arch"]
    arch = ARCHITECTURES.get(given) if isinstance(given, str) else given
    name = VITS.get(arch["embed_dims"]) if arch else None
    if arch is None or name is None or arch["feedforward_channels"] != 4 * arch["embed_dims"]:
        raise InputError(f"VisionTransformer with arch {given!r} has no counterpart here")
    if config.get("out_type") != "featmap" or config.get("with_cls_token", True):
        raise InputError('VisionTransformer has a counterpart here with out_type "featmap" and no class token alone')
    height, width = config["img_size"]
    changes = {
        "img_size": [height, width],
        "patch_size": config["patch_size"],
        "patch_padding": (config.get("patch_cfg") or {}).get("padding", 0),
        "num_heads": arch["num_heads"],
        "class_token": "absent",
        "final_norm": True,
        "norm_eps": 1e-6,
    }
    return {"name": name, "out_indices": [arch["num_layers"] - 1], "changes": changes}


def _pvt_v2(config: Mapping[str, Any]) -> dict[str, Any]:
    layers, width = tuple(config["num_layers"]), config.get("embed_dims", 64)
    name = "pvt_v2_b0" if (width, layers) == (32, (2, 2, 2, 2)) else PVTS.get(layers) if width == 64 else None
    if name is None:
        raise InputError(
            f"PyramidVisionTransformerV2 of width {width} with num_layers {list(layers)} has no counterpart here"
        )
    return {"name": name, "out_indices": [3], "changes": {"norm_eps": 1e-6}}


def _split_projections(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Queries are one projection here, keys and values another; 1x1 convolutions are linear."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        if ".in_proj_" in name:
            stem, kind = name.split("in_proj_")
            query, key, value = tensor.chunk(3)
            made[f"{stem}q.{kind}"], made[f"{stem}kv.{kind}"] = query, torch.cat([key, value])
        else:
            made[name] = tensor.flatten(1) if name.endswith(("fc1.weight", "fc2.weight")) else tensor
    return made


def _pvt_names() -> Names:
    names: list[tuple[str, str]] = []
    for stage in range(4):
        there, here = rf"layers\.{stage}\.", f"model.stages_{stage}."
        embedding = "model.patch_embed." if stage == 0 else f"{here}downsample."
        names += [
            (rf"{there}0\.projection\.", f"{embedding}proj."),
            (rf"{there}0\.norm\.", f"{embedding}norm."),
            (rf"{there}1\.(\d+)\.attn\.attn\.out_proj\.", rf"{here}blocks.\1.attn.proj."),
            (rf"{there}1\.(\d+)\.attn\.attn\.", rf"{here}blocks.\1.attn."),
            (rf"{there}1\.(\d+)\.ffn\.layers\.0\.", rf"{here}blocks.\1.mlp.fc1."),
            (rf"{there}1\.(\d+)\.ffn\.layers\.1\.", rf"{here}blocks.\1.mlp.dwconv."),
            (rf"{there}1\.(\d+)\.ffn\.layers\.4\.", rf"{here}blocks.\1.mlp.fc2."),
            (rf"{there}1\.", f"{here}blocks."),
            (rf"{there}2\.", f"{here}norm."),
        ]
    return tuple(names)


CONVOLUTIONS: Names = (
    (r"stem\.0\.conv\.", "model.conv1.0."),
    (r"stem\.0\.bn\.", "model.conv1.1."),
    (r"stem\.1\.conv\.", "model.conv1.3."),
    (r"stem\.1\.bn\.", "model.conv1.4."),
    (r"stem\.2\.conv\.", "model.conv1.6."),
    (r"stem\.2\.bn\.", "model.bn1."),
    (r"(layer\d\.\d+)\.se_layer\.conv([12])\.conv\.", r"model.\1.se.fc\2."),
    (r"", "model."),
)
POOLED: Names = (  # of those whose shortcuts may begin with a pool, for which timm keeps a place always
    (r"layer1\.0\.downsample\.0\.", "model.layer1.0.downsample.1."),
    (r"layer1\.0\.downsample\.1\.", "model.layer1.0.downsample.2."),
    *CONVOLUTIONS,
)
DEPTH = frozenset({"depth", "out_indices"})

SWIN = transformers.RULES["SwinTransformer"]
RULES: dict[str, BackboneRule] = {
    "ResNet": BackboneRule(_resnet, CONVOLUTIONS, DEPTH),
    "SEResNet": BackboneRule(_resnet, CONVOLUTIONS, DEPTH),
    "ResNetV1d": BackboneRule(_resnet, POOLED, DEPTH),
    "ResNeXt": BackboneRule(_resnext, CONVOLUTIONS, DEPTH),
    "ResNeSt": BackboneRule(_resnest, POOLED, DEPTH),
    "HRNet": BackboneRule(_hrnet, CONVOLUTIONS, frozenset({"extra"}), {"in_channels": 3}),
    "MobileNetV2": BackboneRule(_mobilenet_v2, _mobilenet_names(), frozenset({"widen_factor", "out_indices"})),
    "VGG": BackboneRule(_vgg, _vgg_names(), frozenset({"depth", "norm_cfg"})),
    "mmpretrain.VisionTransformer": BackboneRule(
        _vit,
        (
            (r"patch_embed\.projection\.", "model.model.patch_embed.proj."),
            (r"layers\.(\d+)\.ln([12])\.", r"model.model.blocks.\1.norm\2."),
            (r"layers\.(\d+)\.ffn\.layers\.0\.0\.", r"model.model.blocks.\1.mlp.fc1."),
            (r"layers\.(\d+)\.ffn\.layers\.1\.", r"model.model.blocks.\1.mlp.fc2."),
            (r"layers\.", "model.model.blocks."),
            (r"ln1\.", "model.model.norm."),
            (r"", "model.model."),
        ),
        frozenset({"arch", "img_size", "patch_size", "with_cls_token", "out_type", "patch_cfg"}),
        {"qkv_bias": True},
    ),
    "PyramidVisionTransformerV2": BackboneRule(
        _pvt_v2, _pvt_names(), frozenset({"embed_dims", "num_layers"}), finish=_split_projections
    ),
    "SwinTransformer": replace(
        SWIN, names=((r"norm3\.", "norms.0."), *SWIN.names), fixed={**SWIN.fixed, "convert_weights": True}
    ),
}
