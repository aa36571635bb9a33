"""OpenMMLab's decode heads as ours: one row per head, config keys -> our arguments and their names -> our names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_app.heads.ann import ANN
from lightning_app.heads.apcnet import APCNet
from lightning_app.heads.base import ContextHead
from lightning_app.heads.ccnet import CCNet
from lightning_app.heads.danet import DANet
from lightning_app.heads.deeplabv3 import DeepLabV3
from lightning_app.heads.deeplabv3plus import DeepLabV3Plus
from lightning_app.heads.dmnet import DMNet
from lightning_app.heads.dnlnet import DNL
from lightning_app.heads.dpt import DPT
from lightning_app.heads.emanet import EMANet
from lightning_app.heads.encnet import EncNet
from lightning_app.heads.fcn import FCN
from lightning_app.heads.gcnet import GCNet
from lightning_app.heads.isanet import ISANet
from lightning_app.heads.isnet import ISNet
from lightning_app.heads.knet import KNet
from lightning_app.heads.lightham import LightHam
from lightning_app.heads.lraspp import LRASPP
from lightning_app.heads.mask2former import Mask2Former
from lightning_app.heads.maskformer import MaskFormer
from lightning_app.heads.nonlocal_net import NonLocal
from lightning_app.heads.ocrnet import OCRNet
from lightning_app.heads.psanet import PSANet
from lightning_app.heads.pspnet import PSPNet
from lightning_app.heads.segformer import SegFormer
from lightning_app.heads.segmenter import Segmenter
from lightning_app.heads.semantic_fpn import SemanticFPN
from lightning_app.heads.setr import SETR
from lightning_app.heads.setr_mla import SETRMLA
from lightning_app.heads.upernet import UPerNet
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab import knet, masks
from lightning_app.weights.openmmlab.names import set_norm, substitute

Config = Mapping[str, Any] | Sequence[Mapping[str, Any]]  # of a head, or of a cascade's two


def one(levels: tuple[int, ...]) -> dict[str, Any]:
    """The arguments of a head that reads one level."""
    if len(levels) != 1:
        raise InputError(f"in_index={list(levels)} is not supported: this head reads one level here")
    return {"level": levels[0]}


def several(levels: tuple[int, ...]) -> dict[str, Any]:
    """The arguments of a head that may read several levels."""
    return {"levels": levels}


def only(key: str, *allowed: Any) -> Callable[[Any], dict[str, Any]]:
    """An argument that we take at some values only, because nothing was ever released with another."""

    def check(value: Any) -> dict[str, Any]:
        if value not in allowed:
            raise InputError(f"{key}={value!r} is not supported: it must be {' or '.join(map(repr, allowed))}")
        return {}

    return check


def loss_weight(losses: Any) -> float:
    """The weight of a head's loss, or of its several losses together."""
    return float(sum(loss.get("loss_weight", 1.0) for loss in _several(losses)))


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


NECK = {"type": "FPN", "start_level": 0, "end_level": -1, "add_extra_convs": False, "norm_cfg": None, "act_cfg": None}
NECK |= {"relu_before_extra_convs": False, "no_norm_on_lateral": False, "conv_cfg": None}
NECK |= {"upsample_cfg": {"mode": "nearest"}}  # what every published neck has


def with_neck(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """FPNHead reads the levels that its FPN neck reads, where the neck is given."""
    neck = config.get("neck")
    if not neck:
        return config
    others = {key: value for key, value in neck.items() if key not in ("in_channels", "out_channels", "num_outs")}
    others.pop("init_cfg", None)
    if neck["num_outs"] != len(neck["in_channels"]) or others != {key: NECK.get(key) for key in others}:
        raise InputError(
            f"neck={neck!r} is not supported: it must be an FPN of mmsegmentation's defaults, with as many levels out "
            "as in"
        )
    return {**config, "in_channels": neck["in_channels"]}


def with_decoder(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """DepthwiseSeparableASPPHead without the finest level: its last two convolutions then take no more channels."""
    if config["c1_in_channels"] == 0 and config["c1_channels"] != 0:
        raise InputError(
            f"c1_channels={config['c1_channels']!r} is not supported: it must be 0 where c1_in_channels is, or "
            "mmsegmentation cannot run it either"
        )
    return config


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


def with_tokens(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """DPTHead takes maps and class tokens apart; here a token stands beside each position, in as many channels."""
    if config.get("readout_type", "ignore") == "ignore":
        return config
    return {**config, "in_channels": [2 * width for width in config["in_channels"]]}


@dataclass(frozen=True)
class HeadRule:
    """How one mmsegmentation head becomes one of ours.

    Args:
        head: our class.
        arguments: their config key -> our argument; a function turns the value into (several of) our arguments, and
            raises ``InputError`` for a value we cannot reproduce.
        fixed: our arguments that make the head theirs where our defaults are the paper's.
        names: (pattern, replacement) tried in order on each tensor's name; the first that matches at its start counts.
            Names that none matches stay.
        levels: ``in_index`` -> our arguments.
        finest: the config key that holds the width of the finest level, where ``in_channels`` leaves it out.
        prepare: the config -> one whose keys can be read one by one.
    """

    head: type[ContextHead]
    arguments: Mapping[str, str | Callable[[Any], dict[str, Any]]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[tuple[str, str], ...] = ()
    levels: Callable[[tuple[int, ...]], dict[str, Any]] = one
    finest: str = ""
    prepare: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict


BLOCK_HEAD = (
    (r"convs\.0\.", "reduce."),
    (r"convs\.1\.", "project."),
    (r"conv_cat\.", "fuse."),
)  # the skeleton that NLHead, GCHead, CCHead and DNLHead share
PYRAMID_POOLING = (
    (r"psp_modules\.(\d+)\.1\.", r"pyramid.branches.\1."),
    (r"bottleneck\.", "pyramid.fuse."),
)
ATROUS_PYRAMID = (
    (r"image_pool\.1\.", "pyramid.image_pool."),
    (r"aspp_modules\.", "pyramid.branches."),
    (r"bottleneck\.", "pyramid.fuse."),
)

RULES: dict[str, HeadRule] = {
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
    "APCHead": HeadRule(
        APCNet,
        {"pool_scales": "scales", "fusion": "fusion"},
        names=(
            (r"acm_modules\.(\d+)\.pooled_redu_conv\.", r"blocks.\1.pooled."),
            (r"acm_modules\.(\d+)\.input_redu_conv\.", r"blocks.\1.reduce."),
            (r"acm_modules\.(\d+)\.gla\.", r"blocks.\1.affinity."),
            (r"acm_modules\.(\d+)\.residual_conv\.", r"blocks.\1.residual."),
            (r"acm_modules\.(\d+)\.fusion_conv\.", r"blocks.\1.fuse."),
            (r"acm_modules\.", "blocks."),
            (r"bottleneck\.", "fuse."),
        ),
    ),
    "ASPPHead": HeadRule(
        DeepLabV3, {"dilations": "dilations"}, fixed={"dilations": (1, 6, 12, 18)}, names=ATROUS_PYRAMID
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
    "DMHead": HeadRule(
        DMNet,
        {"filter_sizes": "filter_sizes", "fusion": "fusion"},
        names=(
            (r"dcm_modules\.(\d+)\.filter_gen_conv\.", r"blocks.\1.filter."),
            (r"dcm_modules\.(\d+)\.input_redu_conv\.", r"blocks.\1.reduce."),
            (r"dcm_modules\.(\d+)\.fusion_conv\.", r"blocks.\1.fuse."),
            (r"dcm_modules\.", "blocks."),
            (r"bottleneck\.", "fuse."),
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
    "DepthwiseSeparableASPPHead": HeadRule(
        DeepLabV3Plus,
        {
            "dilations": "dilations",
            "c1_channels": "low_level_channels",
            "c1_in_channels": lambda width: {},
        },
        prepare=with_decoder,
        fixed={"dilations": (1, 6, 12, 18)},
        names=(
            (r"aspp_modules\.(\d+)\.(depth|point)wise_conv\.", r"pyramid.branches.\1.\2wise."),
            (r"c1_bottleneck\.", "low_level."),
            (r"sep_bottleneck\.(\d+)\.(depth|point)wise_conv\.", r"refine.\1.\2wise."),
            *ATROUS_PYRAMID,
        ),
        finest="c1_in_channels",
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
    "FCNHead": HeadRule(
        FCN,
        {
            "num_convs": "num_convs",
            "kernel_size": "kernel_size",
            "dilation": "dilation",
            "concat_input": "concat_input",
        },
        names=((r"conv_cat\.", "fuse."),),
        levels=several,
    ),
    "FPNHead": HeadRule(
        SemanticFPN,
        {"feature_strides": "strides", "neck": lambda neck: {"fpn_channels": neck["out_channels"]}},
        fixed={"fpn_channels": 0},
        prepare=with_neck,
        names=(
            (r"neck\.lateral_convs\.(\d+)\.conv\.", r"fpn.laterals.\1."),
            (r"neck\.fpn_convs\.(\d+)\.conv\.", r"fpn.outs.\1."),
            # odd places in scale_heads hold the resizes
            *((rf"scale_heads\.(\d+)\.{2 * step}\.", rf"branches.\1.{step}.") for step in range(8)),
        ),
        levels=several,
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
    "IterativeDecodeHead": HeadRule(
        KNet,
        {
            "first": "first",
            "arguments": "arguments",
            "num_stages": "stages",
            "num_heads": "heads",
            "num_mask_fcs": "layers",
            "feedforward_channels": "feedforward",
            "width": "width",
        },
        names=(
            *((rf"kernel_update_head\.(\d)\.{there}", rf"stages.\1.{here}") for there, here in knet.NAMES),
            (r"kernel_update_head\.", "stages."),
        ),
        levels=lambda levels: {},
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
    "LRASPPHead": HeadRule(
        LRASPP,
        {"branch_channels": "branch_channels", "norm_cfg": lambda norm: {"norm_eps": norm.get("eps", 1e-5)}},
        names=(
            (r"image_pool\.1\.conv\.", "gate."),
            (r"aspp_conv\.", "reduce."),
            (r"conv_up_input\.", "project."),
            (r"convs\.conv(\d+)\.", r"branches.\1."),
            (r"conv_ups\.conv_up(\d+)\.", r"fuse.\1."),
        ),
        levels=several,
    ),
    "Mask2FormerHead": HeadRule(
        Mask2Former,
        {"num_queries": "queries", **{key: key for key in ("layers", "heads", "feedforward")}}
        | {key: key for key in ("encoder_layers", "encoder_feedforward")},
        names=masks.MASK2FORMER,
        levels=several,
        prepare=masks.flattened,
    ),
    "MaskFormerHead": HeadRule(
        MaskFormer,
        {"num_queries": "queries", **{key: key for key in ("layers", "heads", "feedforward")}},
        names=masks.MASKFORMER,
        levels=several,
        prepare=masks.flattened,
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
            "coarse_in_index": lambda index: {"coarse_levels": tuple(_several(index))},
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
    "DPTHead": HeadRule(
        DPT,
        {
            "embed_dims": lambda width: {},
            "post_process_channels": "widths",
            "readout_type": "readout",
            "patch_size": only("patch_size", 16),
            "expand_channels": only("expand_channels", False),
        },
        prepare=with_tokens,
        fixed={"readout": "ignore"},
        names=(
            (r"reassemble_blocks\.projects\.(\d)\.conv\.", r"reassemble.\1.project."),
            (r"reassemble_blocks\.resize_layers\.(\d)\.", r"reassemble.\1.rescale."),
            (r"reassemble_blocks\.readout_projects\.(\d)\.", r"reassemble.\1.read."),
            (r"convs\.(\d)\.conv\.", r"convs.\1."),
            (r"fusion_blocks\.(\d)\.project\.conv\.", r"fusions.\1.project."),
            (r"fusion_blocks\.(\d)\.res_conv_unit1\.conv1\.", r"fusions.\1.lateral.convs.0."),
            (r"fusion_blocks\.(\d)\.res_conv_unit1\.conv2\.", r"fusions.\1.lateral.convs.1."),
            (r"fusion_blocks\.(\d)\.res_conv_unit2\.conv1\.", r"fusions.\1.residual.convs.0."),
            (r"fusion_blocks\.(\d)\.res_conv_unit2\.conv2\.", r"fusions.\1.residual.convs.1."),
        ),
        levels=several,
    ),
    "SegformerHead": HeadRule(
        SegFormer,
        {"interpolate_mode": only("interpolate_mode", "bilinear")},
        names=((r"convs\.", "laterals."), (r"fusion_conv\.", "fuse.")),
        levels=several,
    ),
    "SegmenterMaskTransformerHead": HeadRule(
        Segmenter,
        {
            "embed_dims": "channels",
            "channels": lambda width: {},
            "num_layers": "layers",
            "num_heads": "heads",
            "mlp_ratio": only("mlp_ratio", 4),
            "qkv_bias": only("qkv_bias", True),
            "drop_path_rate": lambda rate: {},
            "drop_rate": lambda rate: {},
            "attn_drop_rate": lambda rate: {},
        },
        names=(
            (r"cls_emb", "classes"),
            (r"dec_proj\.", "project."),
            (r"patch_proj\.", "patch_query."),
            (r"classes_proj\.", "class_query."),
            (r"decoder_norm\.", "norm."),
            (r"mask_norm\.", "logit_norm."),
            (r"layers\.(\d+)\.ln([12])\.", r"layers.\1.norm\2."),
            (r"layers\.(\d+)\.attn\.attn\.", r"layers.\1.self_attn."),
            (r"layers\.(\d+)\.ffn\.layers\.0\.0\.", r"layers.\1.linear1."),
            (r"layers\.(\d+)\.ffn\.layers\.1\.", r"layers.\1.linear2."),
        ),
    ),
    "SETRUPHead": HeadRule(
        SETR,
        {
            "num_convs": "num_convs",
            "kernel_size": "kernel_size",
            "up_scale": "scale",
            "norm_layer": lambda norm: only("norm_layer", "LN")(norm["type"]) | only("eps", 1e-6)(norm["eps"]),
        },
        fixed={"num_convs": 1, "scale": 4, "kernel_size": 3},
        names=((r"up_convs\.(\d)\.0\.", r"convs.\1."),),
    ),
    "SETRMLAHead": HeadRule(
        SETRMLA,
        {"mla_channels": "channels", "channels": lambda width: {}, "up_scale": "scale"},
        fixed={"channels": 128, "scale": 4},
        names=((r"up_convs\.", "branches."),),
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
    "PSPHead": HeadRule(PSPNet, {"pool_scales": "scales"}, names=PYRAMID_POOLING),
    "UPerHead": HeadRule(
        UPerNet,
        {"pool_scales": "scales"},
        names=(
            (r"lateral_convs\.", "laterals."),
            (r"fpn_convs\.", "outs."),
            (r"fpn_bottleneck\.", "fuse."),
            *PYRAMID_POOLING,
        ),
        levels=several,
    ),
}

SHARED: dict[str, str | Callable[[Any], dict[str, Any]]] = {
    "channels": "channels",
    "align_corners": "align_corners",
    "dropout_ratio": lambda ratio: {"dropout": float(max(ratio, 0))},  # -1 says none
    "conv_cfg": only("conv_cfg", None),
    "act_cfg": only("act_cfg", {"type": "ReLU"}, {"type": "ReLU", "inplace": True}),
    "threshold": lambda value: {},  # of a binary head, see out_channels
    "input_transform": only("input_transform", None, "resize_concat", "multiple_select"),
}
IGNORED = {"type", "num_classes", "out_channels", "in_channels", "in_index", "norm_cfg"}  # read elsewhere
IGNORED |= {"loss_decode", "sampler", "ignore_index", "init_cfg", "downsample_label_ratio"}  # training only
SAME = {"align_corners": False, "conv_cfg": None, "act_cfg": {"type": "ReLU"}, "norm_cfg": None, "num_classes": None}
IGNORED |= {f"coarse_{key}" for key in (*SHARED, *IGNORED)}  # training only, or checked to be the same: joined


def joined(config: Config) -> Mapping[str, Any]:
    """A cascade as one config: the first head's keys with "coarse_" before them. So is K-Net, which holds a head."""
    if isinstance(config, Mapping):
        if knet.FIRST in config:
            return knet.flattened(config, *head_arguments(config[knet.FIRST]))
        return config
    kinds = [stage["type"] for stage in config]
    if kinds != ["FCNHead", "OCRHead"]:
        raise InputError(f"The cascade of {' and '.join(kinds)} has no counterpart here, only FCNHead and OCRHead")
    coarse, fine = config
    for key, default in SAME.items():
        if (first := coarse.get(key, default)) != (second := fine.get(key, default)):
            raise InputError(
                f"The two heads of a cascade differ in {key} ({first!r} and {second!r}): no counterpart here"
            )
    coarse = {"num_convs": 2, "concat_input": True, **coarse}  # FCNHead's defaults
    return {**fine, **{f"coarse_{key}": value for key, value in coarse.items()}}


def rule_of(config: Config) -> HeadRule:
    """How the head of this config is converted."""
    kind = joined(config)["type"]
    if kind not in RULES:
        raise InputError(f'OpenMMLab\'s "{kind}" has no counterpart here; those that have: {", ".join(sorted(RULES))}')
    return RULES[kind]


def new_head(config: Config) -> ContextHead:
    """The head that a config describes, freshly initialised."""
    cls, in_channels, arguments = head_arguments(config)
    config = joined(config)
    head = cls(in_channels, config["num_classes"], **arguments)
    set_norm(head, config)
    return head


def head_arguments(config: Config) -> tuple[type[ContextHead], list[int], dict[str, Any]]:
    """Our class of the head that a config describes, the widths of the levels that it reads, and its arguments."""
    rule, config = rule_of(config), joined(config)
    config = rule.prepare(config)
    for key in config.keys() - SHARED.keys() - rule.arguments.keys() - IGNORED:
        raise InputError(f'{config["type"]} has the argument "{key}" ({config[key]!r}): no counterpart here')
    if config.get("out_channels") not in (None, config["num_classes"]):
        raise InputError(
            f"out_channels={config['out_channels']!r} is not supported: it must be num_classes, "
            f"{config['num_classes']} (a map for each class)"
        )

    levels = _widths(config)
    arguments = rule.levels(tuple(levels)) | dict(rule.fixed)
    for key, target in (SHARED | dict(rule.arguments)).items():
        if key in config:
            arguments |= {target: config[key]} if isinstance(target, str) else target(config[key])
    if rule.finest:
        levels.setdefault(0, config.get(rule.finest, 0))
    levels |= _widths(config, "coarse_")
    in_channels = [0] * (max(3, *levels) + 1)  # those of levels that it does not read stay 0
    for level, width in levels.items():
        in_channels[level] = width
    return rule.head, in_channels, arguments


def rename_head(config: Config, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an mmsegmentation head under our names."""
    names = (*rule_of(config).names, (r"conv_seg\.", "classifier."))
    renamed: dict[str, Tensor] = {}
    if isinstance(config, Mapping) and knet.FIRST in config:
        prefix = f"{knet.FIRST}."
        inner = {name.removeprefix(prefix): each for name, each in state_dict.items() if name.startswith(prefix)}
        first = rename_head(config[knet.FIRST], inner)
        renamed = {name if name.startswith("classifier.") else f"first.{name}": each for name, each in first.items()}
        state_dict = {name: each for name, each in state_dict.items() if not name.startswith(prefix)}
    for name, tensor in state_dict.items():
        ours = substitute(names, name if isinstance(config, Mapping) else name.removeprefix("1."))
        if ours in renamed and not (tensor.is_meta or torch.equal(renamed[ours], tensor)):
            raise InputError(f"Two different tensors, the second of them {name}, are one layer here: {ours}")
        renamed[ours] = tensor.reshape(-1) if ours.endswith("gamma") else tensor  # theirs have no dimension
    return renamed


def _widths(config: Mapping[str, Any], prefix: str = "") -> dict[int, int]:
    """Level -> its width, of the levels that a head reads."""
    widths = config.get(f"{prefix}in_channels", ())
    return dict(zip(_several(config.get(f"{prefix}in_index", -1)), _several(widths), strict=True)) if widths else {}


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]
