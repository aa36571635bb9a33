"""OpenMMLab's transformers, ConvNeXt and PoolFormer as timm's."""

from collections.abc import Mapping
from typing import Any

import timm
import torch

from lightning_app.backbones.changes import Changes
from lightning_app.backbones.mit import MiT
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.names import BackboneRule, Tensors, chosen, substitute

SWINS = {96: ("tiny", "small"), 128: ("base", "base"), 192: ("large", "large")}


def _swin(config: Mapping[str, Any]) -> dict[str, Any]:
    width, depths, window = config["embed_dims"], list(config["depths"]), config["window_size"]
    size = SWINS.get(width, ("", ""))[depths == [2, 2, 18, 2]]
    pretrained = {7: 224, 12: 384}.get(window)
    name = f"swin_{size}_patch4_window{window}_{pretrained}"
    heads = [width * 2**i // 32 for i in range(4)]
    if not timm.is_model(name) or depths not in ([2, 2, 6, 2], [2, 2, 18, 2]) or list(config["num_heads"]) != heads:
        raise InputError(
            f"SwinTransformer with embed_dims {width}, depths {depths}, num_heads {config['num_heads']} and "
            f"window_size {window} has no counterpart here"
        )
    changes = {"pad_patches": True, "pad_windows": True, "level_norm": "layer"}
    return {"name": name, "out_indices": list(config.get("out_indices", range(4))), "changes": changes}


def _halves_crossed(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Swin merges four neighbours in another order: (c, kh, kw) there, (kw, kh, c) here."""
    for name in tensors:
        if ".downsample." in name:
            crossed = tensors[name].reshape(*tensors[name].shape[:-1], -1, 2, 2).transpose(-3, -1)
            tensors[name] = crossed.flatten(-3)
    return tensors


VITS = {192: "tiny", 384: "small", 768: "base", 1024: "large"}


def _vit_name(config: Mapping[str, Any], family: str) -> str:
    width, depth, heads = config.get("embed_dims", 768), config.get("num_layers", 12), config.get("num_heads", 12)
    name = f"{family}_{VITS.get(width)}_patch{config.get('patch_size', 16)}_224"
    if not timm.is_model(name) or depth != (24 if width == 1024 else 12) or heads != width // 64:
        raise InputError(
            f"{config['type']} with embed_dims {width}, num_layers {depth}, num_heads {heads}: no counterpart here"
        )
    return name


def _image(config: Mapping[str, Any], default: int = 224) -> list[int]:
    size = config.get("img_size", default)
    return [size, size] if isinstance(size, int) else [*size, *size][:2]


def _blocks(config: Mapping[str, Any]) -> list[int]:
    indices, depth = config.get("out_indices", -1), config.get("num_layers", 12)
    return [index % depth for index in ([indices] if isinstance(indices, int) else indices)]


def _vit(config: Mapping[str, Any]) -> dict[str, Any]:
    changes: Changes = {"img_size": _image(config), "pad_patches": True}
    changes["positions"] = config.get("interpolate_mode", "bicubic")
    if not config.get("with_cls_token", True):
        changes["class_token"] = "none"
    elif config.get("output_cls_token"):
        changes["class_token"] = "concat"
    if config.get("final_norm"):
        changes["final_norm"] = True
    if not config.get("patch_bias"):
        changes["patch_bias"] = False
    changes["norm_eps"] = config.get("norm_cfg", {}).get("eps", 1e-5)
    return {"name": _vit_name(config, "vit"), "out_indices": _blocks(config), "changes": {**changes}}


def _beit(config: Mapping[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {"img_size": _image(config), "any_size": True}
    if config["type"] == "MAE":
        changes |= {"use_abs_pos_emb": True, "key_bias": True}
    changes["norm_eps"] = config.get("norm_cfg", {}).get("eps", 1e-5)
    return {"name": _vit_name(config, "beit"), "out_indices": _blocks(config), "changes": changes}


def _bias_in_three(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """BEiT here has a bias for queries, keys and values each; MAE there has one for all."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith("attn.qkv.bias"):
            stem = name.removesuffix("qkv.bias")
            made |= dict(zip((f"{stem}{part}_bias" for part in "qkv"), tensor.chunk(3), strict=True))
        else:
            made[name] = tensor
    return made


def _convnext(config: Mapping[str, Any]) -> dict[str, Any]:
    name = f"convnext_{config['arch']}"
    if not isinstance(config["arch"], str) or not timm.is_model(name):
        raise InputError(f"ConvNeXt {config['arch']!r} has no counterpart here")
    changes = {"any_size": True, "level_norm": "layer", "norm_eps": 1e-6}
    return {"name": name, "out_indices": list(config.get("out_indices", [3])), "changes": changes}


def _poolformer(config: Mapping[str, Any]) -> dict[str, Any]:
    name = f"poolformer_{config['arch']}"
    if not isinstance(config["arch"], str) or not timm.is_model(name):
        raise InputError(f"PoolFormer {config['arch']!r} has no counterpart here")
    levels = chosen(config, {0: 0, 2: 1, 4: 2, 6: 3}, (0, 2, 4, 6))
    return {"name": name, "out_indices": levels, "changes": {"any_size": True, "level_norm": "group"}}


TWINS = {
    ("PCPVT", (3, 4, 6, 3), (64, 128, 320, 512)): "twins_pcpvt_small",
    ("PCPVT", (3, 4, 18, 3), (64, 128, 320, 512)): "twins_pcpvt_base",
    ("PCPVT", (3, 8, 27, 3), (64, 128, 320, 512)): "twins_pcpvt_large",
    ("SVT", (2, 2, 10, 4), (64, 128, 256, 512)): "twins_svt_small",
    ("SVT", (2, 2, 18, 2), (96, 192, 384, 768)): "twins_svt_base",
    ("SVT", (2, 2, 18, 2), (128, 256, 512, 1024)): "twins_svt_large",
}


def _twins(config: Mapping[str, Any]) -> dict[str, Any]:
    key = config["type"], tuple(config["depths"]), tuple(config["embed_dims"])
    heads = [width // 32 for width in key[2]] if key[0] == "SVT" else [1, 2, 5, 8]
    if key not in TWINS or list(config["num_heads"]) != heads:
        raise InputError(f"{key[0]} with depths {list(key[1])} and embed_dims {list(key[2])} has no counterpart here")
    changes: dict[str, Any] = {"pad_patches": True, "norm_eps": 1e-5}
    if config["type"] == "SVT":
        changes["mask_padding"] = True
    if config.get("norm_after_stage", config["type"] == "SVT"):
        changes["stage_norm"] = True
    return {"name": TWINS[key], "out_indices": list(config.get("out_indices", range(4))), "changes": changes}


def _twins_names(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Queries are one projection, keys and values another; a stage's norm stands with its last block."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        if ".in_proj_" in name:
            stem, kind = name.split("in_proj_")
            query, key, value = tensor.chunk(3)
            made[f"{stem}q.{kind}"], made[f"{stem}kv.{kind}"] = query, torch.cat([key, value])
        elif name.startswith("norm_list."):
            _, stage, kind = name.split(".")
            made[f"model.model.blocks.{stage}.{config['depths'][int(stage)] - 1}.norm.{kind}"] = tensor
        else:
            made[name] = tensor
    return made


def _poolformer_name(name: str) -> str:
    """Odd places of its network hold what halves the map."""
    for i in range(7):
        name = name.replace(f"STAGE{i}.", f"model.stages_{(i + 1) // 2}.").replace(f"NORM{i}.", f"norms.{i // 2}.")
    return name


TOKENS = {"in_channels": 3, "mlp_ratio": 4, "qkv_bias": True, "qv_bias": True, "act_cfg": {"type": "GELU"}}
TOKENS |= {"qk_scale": None, "patch_norm": True, "use_abs_pos_embed": False, "patch_size": 4, "strides": [4, 2, 2, 2]}
TOKENS |= {"patch_pad": "corner"}
PCPVT = {"mlp_ratios": [8, 8, 4, 4], "patch_sizes": [4, 2, 2, 2], "sr_ratios": [8, 4, 2, 1]}
SVT = {
    "mlp_ratios": [4, 4, 4, 4],
    "patch_sizes": [4, 2, 2, 2],
    "sr_ratios": [8, 4, 2, 1],
    "windiow_sizes": [7, 7, 7, 7],
}
TWINS_READS = frozenset({"embed_dims", "num_heads", "depths", "out_indices", "norm_after_stage", "norm_cfg"})
VIT_READS = frozenset(
    {"img_size", "embed_dims", "num_layers", "num_heads", "out_indices", "norm_cfg", "final_norm", "with_cls_token"}
    | {"output_cls_token", "interpolate_mode", "patch_bias", "patch_size"}
)

VIT_NAMES = (
    (r"layers\.(\d+)\.ln([12])\.", r"model.model.blocks.\1.norm\2."),
    (r"layers\.(\d+)\.attn\.attn\.in_proj_", r"model.model.blocks.\1.attn.qkv."),
    (r"layers\.(\d+)\.attn\.attn\.out_proj\.", r"model.model.blocks.\1.attn.proj."),
    (r"layers\.(\d+)\.ffn\.layers\.0\.0\.", r"model.model.blocks.\1.mlp.fc1."),
    (r"layers\.(\d+)\.ffn\.layers\.1\.", r"model.model.blocks.\1.mlp.fc2."),
    (r"layers\.", "model.model.blocks."),
    (r"patch_embed\.projection\.", "model.model.patch_embed.proj."),
    (r"ln1\.", "model.model.norm."),
    (r"", "model.model."),
)
MITS = {
    (32, (2, 2, 2, 2)): "mit_b0",
    (64, (2, 2, 2, 2)): "mit_b1",
    (64, (3, 4, 6, 3)): "mit_b2",
    (64, (3, 4, 18, 3)): "mit_b3",
    (64, (3, 8, 27, 3)): "mit_b4",
    (64, (3, 6, 40, 3)): "mit_b5",
}


def _mit(config: Mapping[str, Any]) -> dict[str, Any]:
    key = config["embed_dims"], tuple(config["num_layers"])
    if key not in MITS:
        raise InputError(f"MixVisionTransformer with embed_dims {key[0]} and num_layers {key[1]}: no counterpart here")
    return {"name": MITS[key], "norm_eps": config.get("norm_cfg", {}).get("eps", 1e-6)}


def _mit_names(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Stages are counted from 1 here; queries are one projection, keys and values another; two 1x1 are linear."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        _, stage, rest = name.split(".", 2)
        part = substitute(MIT_NAMES, rest).replace("#", str(int(stage) + 1))
        if ".in_proj_" in part:
            stem, kind = part.split("in_proj_")
            query, key, value = tensor.chunk(3)
            made[f"model.{stem}q.{kind}"], made[f"model.{stem}kv.{kind}"] = query, torch.cat([key, value])
        else:
            flat = tensor.flatten(1) if tensor.dim() == 4 and ".mlp.fc" in part else tensor
            made[f"model.{part}"] = flat
    return made


MIT_NAMES = (
    (r"0\.projection\.", "patch_embed#.proj."),
    (r"0\.norm\.", "patch_embed#.norm."),
    (r"2\.", "norm#."),
    (r"1\.(\d+)\.attn\.attn\.out_proj\.", r"block#.\1.attn.proj."),
    (r"1\.(\d+)\.attn\.attn\.", r"block#.\1.attn."),
    (r"1\.(\d+)\.ffn\.layers\.0\.", r"block#.\1.mlp.fc1."),
    (r"1\.(\d+)\.ffn\.layers\.1\.", r"block#.\1.mlp.dwconv.dwconv."),
    (r"1\.(\d+)\.ffn\.layers\.4\.", r"block#.\1.mlp.fc2."),
    (r"1\.", "block#."),
)  # of one stage; # is its number
TWINS_NAMES = (
    (r"patch_embeds\.(\d)\.projection\.", r"model.model.patch_embeds.\1.proj."),
    (r"position_encodings\.(\d)\.proj\.", r"model.model.pos_block.\1.proj.0."),
    (r"layers\.(\d)\.(\d+)\.attn\.attn\.out_proj\.", r"model.model.blocks.\1.\2.attn.proj."),
    (r"layers\.(\d)\.(\d+)\.attn\.attn\.", r"model.model.blocks.\1.\2.attn."),
    (r"layers\.(\d)\.(\d+)\.ffn\.layers\.0\.0\.", r"model.model.blocks.\1.\2.mlp.fc1."),
    (r"layers\.(\d)\.(\d+)\.ffn\.layers\.1\.", r"model.model.blocks.\1.\2.mlp.fc2."),
    (r"layers\.", "model.model.blocks."),
    (r"norm_list\.", "norm_list."),
    (r"", "model.model."),
)

RULES: dict[str, BackboneRule] = {
    "SwinTransformer": BackboneRule(
        _swin,
        (
            (r"patch_embed\.projection\.", "model.patch_embed.proj."),
            (r"patch_embed\.", "model.patch_embed."),
            *((rf"stages\.{i}\.downsample\.", f"model.layers_{i + 1}.downsample.") for i in range(3)),
            (r"stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.", r"model.layers_\1.blocks.\2.attn."),
            (r"stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.0\.0\.", r"model.layers_\1.blocks.\2.mlp.fc1."),
            (r"stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.1\.", r"model.layers_\1.blocks.\2.mlp.fc2."),
            (r"stages\.(\d+)\.", r"model.layers_\1."),
            (r"norm(\d)\.", r"norms.\1."),
        ),
        frozenset({"embed_dims", "depths", "num_heads", "window_size", "out_indices", "pretrain_img_size"}),
        TOKENS | {"norm_cfg": {"type": "LN", "requires_grad": True}},
        finish=_halves_crossed,
    ),
    "VisionTransformer": BackboneRule(_vit, VIT_NAMES, VIT_READS, TOKENS),
    "BEiT": BackboneRule(_beit, VIT_NAMES, VIT_READS, TOKENS),
    "MAE": BackboneRule(_beit, VIT_NAMES, VIT_READS, TOKENS, finish=_bias_in_three),
    "mmpretrain.ConvNeXt": BackboneRule(
        _convnext,
        (
            (r"downsample_layers\.0\.", "model.stem_"),
            (r"downsample_layers\.(\d)\.", r"model.stages_\1.downsample."),
            (r"stages\.(\d)\.(\d+)\.depthwise_conv\.", r"model.stages_\1.blocks.\2.conv_dw."),
            (r"stages\.(\d)\.(\d+)\.pointwise_conv(\d)\.", r"model.stages_\1.blocks.\2.mlp.fc\3."),
            (r"stages\.(\d)\.(\d+)\.", r"model.stages_\1.blocks.\2."),
            (r"norm(\d)\.", r"norms.\1."),
        ),
        frozenset({"arch", "out_indices"}),
        {"gap_before_final_norm": False},
    ),
    "mmpretrain.PoolFormer": BackboneRule(
        _poolformer,
        (
            (r"patch_embed\.proj\.", "model.stem.conv."),
            (r"network\.([0246])\.(\d+)\.layer_scale_(\d)", r"STAGE\1.blocks.\2.layer_scale\3.scale"),
            (r"network\.([0246])\.", r"STAGE\1.blocks."),
            (r"network\.([135])\.proj\.", r"STAGE\1.downsample.conv."),
            (r"norm([0246])\.", r"NORM\1."),
        ),
        frozenset({"arch", "out_indices"}),
        {"in_patch_size": 7, "in_stride": 4, "in_pad": 2, "down_patch_size": 3, "down_stride": 2, "down_pad": 1},
        finish=lambda tensors, config: {_poolformer_name(name): each for name, each in tensors.items()},
    ),
    "PCPVT": BackboneRule(_twins, TWINS_NAMES, TWINS_READS, TOKENS | PCPVT, finish=_twins_names),
    "SVT": BackboneRule(_twins, TWINS_NAMES, TWINS_READS, TOKENS | SVT, finish=_twins_names),
    "MixVisionTransformer": BackboneRule(
        _mit,
        (),
        frozenset({"embed_dims", "num_layers", "norm_cfg"}),
        TOKENS
        | {"num_stages": 4, "num_heads": [1, 2, 5, 8], "patch_sizes": [7, 3, 3, 3], "sr_ratios": [8, 4, 2, 1]}
        | {"out_indices": [0, 1, 2, 3]},
        cls=MiT,
        finish=_mit_names,
    ),
}
