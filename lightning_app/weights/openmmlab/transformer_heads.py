"""Rules of the heads of transformers, and of those that decode masks."""

from collections.abc import Mapping
from typing import Any

from lightning_app.heads.dpt import DPT
from lightning_app.heads.knet import KNet
from lightning_app.heads.mask2former import Mask2Former
from lightning_app.heads.maskformer import MaskFormer
from lightning_app.heads.segformer import SegFormer
from lightning_app.heads.segmenter import Segmenter
from lightning_app.heads.setr import SETR
from lightning_app.heads.setr_mla import SETRMLA
from lightning_app.weights.openmmlab import knet, masks
from lightning_app.weights.openmmlab.head_rule import HeadRule, only, several


def with_tokens(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """DPTHead takes maps and class tokens apart; here a token stands beside each position, in as many channels."""
    if config.get("readout_type", "ignore") == "ignore":
        return config
    return {**config, "in_channels": [2 * width for width in config["in_channels"]]}


TRANSFORMERS: dict[str, HeadRule] = {
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
    "SETRMLAHead": HeadRule(
        SETRMLA,
        {"mla_channels": "channels", "channels": lambda width: {}, "up_scale": "scale"},
        fixed={"channels": 128, "scale": 4},
        names=((r"up_convs\.", "branches."),),
        levels=several,
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
}
