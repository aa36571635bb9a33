"""Parts of mmdetection's detectors: what a config says of a pyramid, a mask head and an RoI extractor."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lightning_app.tasks.instance.mask_head import MaskHead
from lightning_app.tasks.instance.pyramid import Balance, CARAFEPyramid, Pyramid
from lightning_app.tasks.instance.roi_align import AllLevelsAlign, LevelAlign, Regions
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.plugins import attention_arguments

CARAFE = {
    "up_kernel": "kernel",
    "up_group": "groups",
    "encoder_kernel": "encoder_kernel",
    "encoder_dilation": "encoder_dilation",
    "compressed_channels": "compressed",
}


def new_roi_align(config: Mapping[str, Any]) -> nn.Module:
    """The RoI extractor that a config describes, freshly initialised.

    Raises:
        InputError: an extractor or an argument that has no counterpart here.
    """
    regions, options = regions_of(config)
    align = {"level": LevelAlign, "groie": AllLevelsAlign}[regions]
    made: nn.Module = align(
        config["featmap_strides"], config["roi_layer"]["output_size"], config["out_channels"], **options
    )
    return made


def new_neck(config: Mapping[str, Any]) -> nn.Module:
    """The pyramid that a config describes, freshly initialised.

    Raises:
        InputError: a neck or an argument that has no counterpart here.
    """
    kind, channels, carafe = neck_of(config)
    if kind == "carafe":
        return CARAFEPyramid(config["in_channels"], channels, **carafe)
    return Pyramid(config["in_channels"], channels, extra=config["num_outs"] - len(config["in_channels"]))


def new_balance(config: Mapping[str, Any]) -> Balance:
    """The balance of levels that a config of BFP describes, freshly initialised.

    Raises:
        InputError: an argument that has no counterpart here.
    """
    if config["refine_type"] != "non_local":
        raise InputError(f"refine_type={config['refine_type']!r} has no counterpart here: only non_local")
    return Balance(config["in_channels"], middle=config["refine_level"])


def new_mask_head(config: Mapping[str, Any]) -> MaskHead:
    """The mask head that a config describes, freshly initialised, without a background.

    Raises:
        InputError: an argument that has no counterpart here.
    """
    upsample, carafe = upsample_of(config)
    return MaskHead(
        config["in_channels"],
        config["num_classes"],
        channels=config["conv_out_channels"],
        depth=config["num_convs"],
        upsample=upsample,
        **carafe,
    )


def regions_of(config: Mapping[str, Any]) -> tuple[Regions, dict[str, Any]]:
    """How the features of a box are read, and the arguments of GRoIE's way."""
    width, layer = config["out_channels"], config["roi_layer"]
    options = {key: each for key, each in config.items() if key not in ("out_channels", "featmap_strides", "roi_layer")}
    adaptive, twice = ({"type": "RoIAlign", "output_size": layer["output_size"], "sampling_ratio": n} for n in (0, 2))
    if options == {"type": "SingleRoIExtractor"} and layer == adaptive:
        return "level", {}
    pre, post = options.pop("pre_cfg", {}), options.pop("post_cfg", {})
    kernel = pre.get("kernel_size", 0)
    same = {"type": "ConvModule", "in_channels": width, "out_channels": width, "padding": kernel // 2, "inplace": False}
    if {"aggregation": "sum", **options} != {"type": "GenericRoIExtractor", "aggregation": "sum"} or layer != twice:
        raise InputError(f"roi_extractor={dict(config)!r} has no counterpart here: only the two published kinds")
    if pre != same | {"kernel_size": kernel} or post.get("type") != "GeneralizedAttention":
        raise InputError(f"pre_cfg={pre!r} and post_cfg={post!r} have no counterpart here: only GRoIE's")
    return "groie", {"kernel": kernel, "attention": attention_arguments(post)}


def neck_of(config: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[str, int, dict[str, Any]]:
    """Which pyramid, its width, and CARAFE's arguments."""
    if not isinstance(config, Mapping):
        kinds = [each["type"] for each in config]
        if kinds != ["FPN", "BFP"]:
            raise InputError(f"The neck {' and '.join(kinds)} has no counterpart here: only FPN and BFP")
        first, second = config
        if new_balance(second).middle != 2:
            raise InputError(f"refine_level={second['refine_level']} has no counterpart here: only 2")
        return "libra", neck_of(first)[1], {}
    plain = {"type", "in_channels", "out_channels", "num_outs"}
    if config["type"] == "FPN" and config.keys() <= plain:
        return "fpn", config["out_channels"], {}
    fixed = {"start_level": 0, "end_level": -1, "norm_cfg": None, "act_cfg": None, "order": ["conv", "norm", "act"]}
    others = {key: value for key, value in config.items() if key not in plain | {"upsample_cfg"}}
    if config["type"] == "FPN_CARAFE" and others.items() <= fixed.items():
        return "carafe", config["out_channels"], _carafe(config["upsample_cfg"])
    raise InputError(f"neck={dict(config)!r} has no counterpart here: only FPN and FPN_CARAFE of the published kind")


def upsample_of(config: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """How a mask head doubles its size, and CARAFE's arguments."""
    options = {"type": "deconv", "scale_factor": 2, **config.get("upsample_cfg", {})}
    if options.pop("scale_factor") != 2:
        raise InputError(f"upsample_cfg={config['upsample_cfg']!r} has no counterpart here: only scale_factor 2")
    if options == {"type": "deconv"}:
        return "deconv", {}
    return "carafe", _carafe(options)


def _carafe(config: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: value for key, value in config.items() if key != "type"}
    if config["type"] != "carafe" or options.keys() - CARAFE.keys():
        raise InputError(f"upsample_cfg={dict(config)!r} has no counterpart here: only carafe with {', '.join(CARAFE)}")
    return {CARAFE[key]: value for key, value in options.items()}
