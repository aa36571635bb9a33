"""Rules of the heads of convolutions and pyramids."""

from collections.abc import Mapping
from typing import Any

from lightning_app.heads.apcnet import APCNet
from lightning_app.heads.deeplabv3 import DeepLabV3
from lightning_app.heads.deeplabv3plus import DeepLabV3Plus
from lightning_app.heads.dmnet import DMNet
from lightning_app.heads.fcn import FCN
from lightning_app.heads.lraspp import LRASPP
from lightning_app.heads.pointrend import PointRend
from lightning_app.heads.pspnet import PSPNet
from lightning_app.heads.semantic_fpn import SemanticFPN
from lightning_app.heads.upernet import UPerNet
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.head_rule import HeadRule, several

NECK = {"type": "FPN", "start_level": 0, "end_level": -1, "add_extra_convs": False, "norm_cfg": None, "act_cfg": None}
NECK |= {"relu_before_extra_convs": False, "no_norm_on_lateral": False, "conv_cfg": None}
NECK |= {"upsample_cfg": {"mode": "nearest"}}  # what every published neck has

PYRAMID_POOLING = (
    (r"psp_modules\.(\d+)\.1\.", r"pyramid.branches.\1."),
    (r"bottleneck\.", "pyramid.fuse."),
)

FPN = (
    (r"neck\.lateral_convs\.(\d+)\.conv\.", r"fpn.laterals.\1."),
    (r"neck\.fpn_convs\.(\d+)\.conv\.", r"fpn.outs.\1."),
)
SCALE_HEADS = tuple((rf"scale_heads\.(\d+)\.{2 * step}\.", rf"branches.\1.{step}.") for step in range(8))
# odd places in scale_heads hold the resizes

ATROUS_PYRAMID = (
    (r"image_pool\.1\.", "pyramid.image_pool."),
    (r"aspp_modules\.", "pyramid.branches."),
    (r"bottleneck\.", "pyramid.fuse."),
)


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


PYRAMIDS: dict[str, HeadRule] = {
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
        names=(*FPN, *SCALE_HEADS),
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
    "PointHead": HeadRule(
        PointRend,
        {
            "feature_strides": "strides",
            "neck": lambda neck: {"fpn_channels": neck["out_channels"]},
            **{key: key for key in ("point_channels", "layers", "steps", "points")},
        },
        fixed={"fpn_channels": 0},
        prepare=with_neck,
        names=(
            (r"fcs\.(\d)\.conv\.", r"points.layers.\1."),
            (r"fc_seg\.", "points.classifier."),
            (r"0\.conv_seg\.", "classifier."),
            *((rf"0\.{there}", here) for there, here in SCALE_HEADS),
            *FPN,
        ),
        levels=several,
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
