"""Rules of the heads with attention or another operator over the whole map."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lightning_app.heads.ann import ANN
from lightning_app.heads.ccnet import CCNet
from lightning_app.heads.danet import DANet
from lightning_app.heads.dnlnet import DNL
from lightning_app.heads.emanet import EMANet
from lightning_app.heads.encnet import EncNet
from lightning_app.heads.gcnet import GCNet
from lightning_app.heads.isanet import ISANet
from lightning_app.heads.isnet import ISNet
from lightning_app.heads.lightham import LightHam
from lightning_app.heads.nonlocal_net import NonLocal
from lightning_app.heads.ocrnet import OCRNet
from lightning_app.heads.psanet import PSANet
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.head_rule import HeadRule, as_list, loss_weight, only, several

BLOCK_HEAD = (
    (r"convs\.0\.", "reduce."),
    (r"convs\.1\.", "project."),
    (r"conv_cat\.", "fuse."),
)  # the skeleton that NLHead, GCHead, CCHead and DNLHead share


def attention_stages(query_scales: Sequence[int]) -> dict[str, Any]:
    """ANN's attentions on the whole map; those on a smaller one cannot run in mmsegmentation."""
    if any(scale != 1 for scale in query_scales):
        raise InputError(f"query_scales={query_scales!r} is not supported: it must hold nothing but 1")
    return {"stages": len(query_scales)}


def scaled_in_float32(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """DNLHead divides by temperature and sqrt(inner width) as float32 numbers, whatever the model's precision."""
    temperature = torch.tensor(config.get("temperature", 0.05), dtype=torch.float32, device="cpu").item()
    if config.get("use_scale", True):
        inner = torch.tensor(
            max(config["channels"] // config.get("reduction", 2), 1), dtype=torch.float64, device="cpu"
        )
        temperature *= (inner.float() ** 0.5 / inner**0.5).item()
    return {**config, "temperature": temperature}


def unswapped(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """PSAHead exchanges collect and distribute where the mask is compact, unless it does both."""
    kind = config.get("psa_type", "bi-direction")
    swapped = {"collect": "distribute", "distribute": "collect"}
    return {**config, "psa_type": swapped.get(kind, kind)} if config.get("compact") else config


def ham_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of ``ham_kwargs``; its inv_t is never used there."""
    unknown = config.keys() - {"MD_S", "MD_R", "train_steps", "eval_steps", "inv_t", "rand_init"}
    steps = config.get("train_steps", 6)
    if unknown or config.get("eval_steps", 7) != steps + 1:
        raise InputError(f"ham_kwargs={dict(config)!r} is not supported: eval_steps must be train_steps + 1")
    return {
        "slices": config.get("MD_S", 1),
        "bases": config.get("MD_R", 64),
        "steps": steps,
        "redraw": config.get("rand_init", True),
    }


ATTENTION: dict[str, HeadRule] = {
    "ANNHead": HeadRule(
        ANN,
        {"project_channels": "key_channels", "key_pool_scales": "scales", "query_scales": attention_stages},
        names=(
            (r"fusion\.stages\.(\d+)\.(query|key|value|out)_project\.", r"fusion.stages.\1.\2."),
            (r"fusion\.bottleneck\.", "fusion.fuse."),
            (r"context\.stages\.(\d+)\.(value|out)_project\.", r"block.stages.\1.\2."),
            (r"context\.stages\.(\d+)\.(query|key)_project\.", r"block.stages.\1.query."),  # one layer, stored twice
            (r"context\.bottleneck\.", "block.fuse."),
            (r"bottleneck\.", "reduce."),
        ),
        levels=several,
    ),
    "CCHead": HeadRule(
        CCNet,
        {"recurrence": "recurrence", "concat_input": "concat_input"},
        names=((r"cca\.(query|key|value)_conv\.", r"block.\1."), (r"cca\.gamma\.scale", "block.gamma"), *BLOCK_HEAD),
    ),
    "DAHead": HeadRule(
        DANet,
        {"pam_channels": "key_channels"},
        names=(
            (r"(pam|cam)_in_conv\.", r"\1.0."),
            (r"pam\.(query|key|value)_project\.", r"pam.1.\1."),
            (r"(pam|cam)\.gamma\.scale", r"\1.1.gamma"),
            (r"(pam|cam)_out_conv\.", r"\1.2."),
            (r"(pam|cam)_conv_seg\.", r"\1_classifier."),
        ),
    ),
    "DNLHead": HeadRule(
        DNL,
        {
            "mode": "mode",
            "reduction": "reduction",
            "use_scale": "use_scale",
            "temperature": "temperature",
            "concat_input": "concat_input",
        },
        prepare=scaled_in_float32,
        names=(
            (r"dnl_block\.(g|theta|phi|concat_project)\.conv\.", r"block.\1."),
            (r"dnl_block\.", "block."),
            *BLOCK_HEAD,
        ),
    ),
    "EMAHead": HeadRule(
        EMANet,
        {
            "ema_channels": "block_channels",
            "num_bases": "bases",
            "num_stages": "stages",
            "momentum": "momentum",
            "concat_input": "concat_input",
        },
        fixed={"unit_update": True, "eps": 1e-12, "concat_input": True},
        names=(
            (r"ema_module\.bases", "block.bases"),
            (r"ema_in_conv\.", "reduce."),
            (r"ema_mid_conv\.conv\.", "block.mid."),
            (r"ema_out_conv\.", "block.out."),
            (r"bottleneck\.", "project."),
            (r"conv_cat\.", "fuse."),
        ),
    ),
    "EncHead": HeadRule(
        EncNet,
        {
            "num_codes": "codes",
            "add_lateral": lambda joined: {} if joined else {"lateral_levels": ()},
            "loss_se_decode": lambda loss: {"presence_weight": loss_weight(loss)},
            "use_se_loss": lambda used: {} if used else {"presence_weight": 0.0},
        },
        names=(
            (r"bottleneck\.", "reduce."),
            (r"lateral_convs\.", "laterals."),
            (r"fusion\.", "fuse."),
            (r"enc_module\.encoding_project\.", "block.project."),
            (r"enc_module\.encoding\.0\.", "block."),
            (r"enc_module\.encoding\.1\.", "block.norm."),
            (r"enc_module\.fc\.0\.", "block.gate."),
            (r"se_layer\.", "presence."),
        ),
        levels=lambda levels: {"level": levels[-1], "lateral_levels": levels[:-1]},
        prepare=lambda config: {"add_lateral": False, **config},
    ),
    "GCHead": HeadRule(
        GCNet,
        {
            "ratio": "ratio",
            "pooling_type": "pooling",
            "fusion_types": lambda kinds: {"fusion": [kind.removeprefix("channel_") for kind in kinds]},
            "concat_input": "concat_input",
        },
        names=(
            (r"gc_block\.conv_mask\.", "block.mask."),
            (r"gc_block\.channel_(add|mul)_conv\.", r"block.\1."),
            *BLOCK_HEAD,
        ),
    ),
    "ISAHead": HeadRule(
        ISANet,
        {"isa_channels": "key_channels", "down_factor": lambda cell: {"cells": (tuple(cell),)}},
        names=(
            (r"in_conv\.", "reduce."),
            (r"global_relation\.(query|key|value)_project\.", r"block.stages.0.far.\1."),
            (r"global_relation\.output_project\.", "block.stages.0.far_out."),
            (r"local_relation\.(query|key|value)_project\.", r"block.stages.0.near.\1."),
            (r"local_relation\.output_project\.", "block.stages.0.near_out."),
            (r"out_conv\.", "block.fuse."),
        ),
    ),
    "ISNetHead": HeadRule(
        ISNet,
        {
            "transform_channels": "inner_channels",
            "concat_input": only("concat_input", True),
            "shortcut_feat_channels": "shortcut_channels",
            "shortcut_in_channels": lambda width: {},
            "with_shortcut": lambda there: {} if there else {"shortcut_channels": 0},
        },
        prepare=lambda config: {key: config[key] for key in sorted(config)},  # with_shortcut has the last word
        names=(
            (r"bottleneck\.", "reduce."),
            (r"ilc_net\.bottleneck\.", "image.fuse."),
            (r"slc_net\.bottleneck\.", "semantic.fuse."),
            (r"ilc_net\.correlate_net\.(query|key|value|out)_project\.", r"image.correlation.\1."),
            (r"slc_net\.correlate_net\.(query|key|value|out)_project\.", r"semantic.correlation.\1."),
            (r"decoder_stage1\.0\.", "first.0."),
            (r"decoder_stage1\.2\.", "first_classifier."),
            (r"decoder_stage2\.0\.", "fuse."),
            (r"decoder_stage2\.[12]\.", "classifier."),
        ),
        levels=lambda levels: {"level": levels[-1]},
    ),
    "LightHamHead": HeadRule(
        LightHam,
        {
            "ham_channels": "block_channels",
            "ham_kwargs": ham_arguments,
            "norm_cfg": lambda norm: {"norm_groups": norm["num_groups"] if norm["type"] == "GN" else 0},
        },
        fixed={"one_step": False},
        names=(
            (r"squeeze\.gn\.", "reduce.bn."),
            (r"squeeze\.", "reduce."),
            (r"hamburger\.ham_in\.conv\.", "block.lower."),
            (r"hamburger\.ham_out\.gn\.", "block.upper.bn."),
            (r"hamburger\.ham_out\.", "block.upper."),
            (r"hamburger\.ham\.bases", "block.start"),
            (r"align\.gn\.", "project.bn."),
            (r"align\.", "project."),
        ),
        levels=several,
    ),
    "NLHead": HeadRule(
        NonLocal,
        {"mode": "mode", "reduction": "reduction", "use_scale": "use_scale", "concat_input": "concat_input"},
        names=(
            (r"nl_block\.(g|theta|phi|concat_project)\.conv\.", r"block.\1."),
            (r"nl_block\.", "block."),
            *BLOCK_HEAD,
        ),
    ),
    "OCRHead": HeadRule(
        OCRNet,
        {
            "ocr_channels": "key_channels",
            "scale": only("scale", 1),
            "coarse_channels": "coarse_channels",
            "coarse_kernel_size": "coarse_kernel_size",
            "coarse_num_convs": only("num_convs", 1),
            "coarse_concat_input": only("concat_input", False),
            "coarse_in_index": lambda index: {"coarse_levels": tuple(as_list(index))},
            "coarse_loss_decode": lambda loss: {"coarse_weight": loss_weight(loss)},
        },
        fixed={"coarse_channels": 0},
        names=(
            (r"0\.conv_seg\.", "coarse.classifier."),
            (r"0\.", "coarse."),
            (r"bottleneck\.", "reduce."),
            (r"object_context_block\.(query|key|value|out)_project\.", r"block.\1."),
            (r"object_context_block\.bottleneck\.", "block.fuse."),
        ),
        levels=several,
    ),
    "PSAHead": HeadRule(
        PSANet,
        {
            "psa_type": lambda kind: {"mode": kind.replace("-", "")},
            "mask_size": "mask_size",
            "compact": "compact",
            "shrink_factor": "shrink_factor",
            "psa_softmax": "softmax",
            "normalization_factor": "normalization_factor",
        },
        fixed={"padding": 1},
        names=(
            (r"(reduce|attention)\.", r"block.\1.0."),
            (r"(reduce|attention)_p\.", r"block.\1.1."),
            (r"proj\.", "block.proj."),
            (r"bottleneck\.", "fuse."),
        ),
        prepare=unswapped,
    ),
}
