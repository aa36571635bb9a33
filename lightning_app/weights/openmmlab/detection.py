"""OpenMMLab's detectors as instance segmentors: mmdetection's configurations and names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.tasks.instance.mask_head import MaskHead
from lightning_app.tasks.instance.network import InstanceSegmentor
from lightning_app.tasks.instance.pyramid import CARAFEPyramid, Pyramid
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.backbones import new_backbone, rename_backbone
from lightning_app.weights.openmmlab.convert import load_strictly
from lightning_app.weights.openmmlab.heads import substitute
from lightning_app.weights.openmmlab.tensors import read_tensors

CARAFE = {
    "up_kernel": "kernel",
    "up_group": "groups",
    "encoder_kernel": "encoder_kernel",
    "encoder_dilation": "encoder_dilation",
    "compressed_channels": "compressed",
}
PUBLISHED_CARAFE = {"kernel": 5, "groups": 1, "encoder_kernel": 3, "encoder_dilation": 1, "compressed": 64}
NAMES = (
    (r"neck\.lateral_convs\.(\d+)\.conv\.", r"fpn.inner_blocks.\1.0."),
    (r"neck\.fpn_convs\.(\d+)\.conv\.", r"fpn.layer_blocks.\1.0."),
    (r"neck\.upsample_modules\.(\d+)\.channel_compressor\.", r"fpn.upsample.\1.compressor."),
    (r"neck\.upsample_modules\.(\d+)\.content_encoder\.", r"fpn.upsample.\1.encoder."),
    (r"rpn_head\.rpn_conv\.", "rpn.head.conv.0.0."),
    (r"rpn_head\.rpn_cls\.", "rpn.head.cls_logits."),
    (r"rpn_head\.rpn_reg\.", "rpn.head.bbox_pred."),
    (r"roi_head\.bbox_head\.shared_fcs\.0\.", "roi_heads.box_head.fc6."),
    (r"roi_head\.bbox_head\.shared_fcs\.1\.", "roi_heads.box_head.fc7."),
    (r"roi_head\.bbox_head\.fc_cls\.", "roi_heads.box_predictor.cls_score."),
    (r"roi_head\.bbox_head\.fc_reg\.", "roi_heads.box_predictor.bbox_pred."),
    (r"roi_head\.mask_head\.convs\.(\d+)\.conv\.", r"roi_heads.mask_head.convs.\1.0."),
    (r"roi_head\.mask_head\.upsample\.channel_compressor\.", "roi_heads.mask_head.predictor.carafe.compressor."),
    (r"roi_head\.mask_head\.upsample\.content_encoder\.", "roi_heads.mask_head.predictor.carafe.encoder."),
    (r"roi_head\.mask_head\.upsample\.", "roi_heads.mask_head.predictor.conv5_mask."),
    (r"roi_head\.mask_head\.conv_logits\.", "roi_heads.mask_head.predictor.mask_fcn_logits."),
)

# What every published detector has, and what is looked at in testing: path in the configuration -> its value.
FIXED: dict[str, Any] = {
    "rpn_head.type": "RPNHead",
    "rpn_head.anchor_generator.scales": [8],
    "rpn_head.anchor_generator.ratios": [0.5, 1.0, 2.0],
    "rpn_head.anchor_generator.strides": [4, 8, 16, 32, 64],
    "rpn_head.bbox_coder.target_means": [0.0, 0.0, 0.0, 0.0],
    "rpn_head.bbox_coder.target_stds": [1.0, 1.0, 1.0, 1.0],
    "roi_head.type": "StandardRoIHead",
    "roi_head.bbox_roi_extractor.type": "SingleRoIExtractor",
    "roi_head.bbox_roi_extractor.roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0},
    "roi_head.bbox_roi_extractor.featmap_strides": [4, 8, 16, 32],
    "roi_head.bbox_head.type": "Shared2FCBBoxHead",
    "roi_head.bbox_head.roi_feat_size": 7,
    "roi_head.bbox_head.reg_class_agnostic": False,
    "roi_head.bbox_head.bbox_coder.target_means": [0.0, 0.0, 0.0, 0.0],
    "roi_head.bbox_head.bbox_coder.target_stds": [0.1, 0.1, 0.2, 0.2],
    "test_cfg.rpn.nms_pre": 1000,
    "test_cfg.rpn.max_per_img": 1000,
    "test_cfg.rpn.nms.iou_threshold": 0.7,
    "test_cfg.rpn.min_bbox_size": 0,
    "test_cfg.rcnn.nms": {"type": "nms", "iou_threshold": 0.5},
}
FIXED_OF_MASKS: dict[str, Any] = {
    "roi_head.mask_roi_extractor.type": "SingleRoIExtractor",
    "roi_head.mask_roi_extractor.roi_layer": {"type": "RoIAlign", "output_size": 14, "sampling_ratio": 0},
    "roi_head.mask_roi_extractor.featmap_strides": [4, 8, 16, 32],
    "roi_head.mask_head.type": "FCNMaskHead",
    "roi_head.mask_head.num_convs": 4,
    "test_cfg.rcnn.mask_thr_binary": 0.5,
}
KINDS = {"MaskRCNN": True, "FasterRCNN": False}  # and whether it finds masks


def load_detector(weights: str | Path | Mapping[str, Tensor], config: Mapping[str, Any]) -> InstanceSegmentor:
    """The published detector with its weights, in evaluation mode: ``model(images)`` takes RGB in 0..1.

    Args:
        weights: a checkpoint file, which nothing is executed from, or its state dict.
        config: the model as mmdetection spells it.

    Raises:
        InputError: an unreadable file; a part, an argument or a tensor that has no counterpart here; missing tensors.
    """
    state_dict = weights if isinstance(weights, Mapping) else read_tensors(Path(weights))
    model = new_detector(config)
    load_strictly(model, rename(config, state_dict), what="the model" if isinstance(weights, Mapping) else str(weights))
    return model.eval()


def new_detector(config: Mapping[str, Any]) -> InstanceSegmentor:
    """The detector that a config describes, freshly initialised.

    Raises:
        InputError: a part or an argument that has no counterpart here.
    """
    return InstanceSegmentor(new_backbone(config["backbone"]), **detector_arguments(config))


def detector_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of InstanceSegmentor, but for the backbone, that make it the detector of a config.

    Raises:
        InputError: a part or an argument that has no counterpart here.
    """
    kind = config["type"]
    if kind not in KINDS:
        raise InputError(f'OpenMMLab\'s detector "{kind}" has no counterpart here: only {", ".join(KINDS)}')
    masks = KINDS[kind]
    for path, value in (FIXED | (FIXED_OF_MASKS if masks else {})).items():
        if (found := _at(config, path)) != value:
            raise InputError(f"{path}={found!r} has no counterpart here: only {value!r}")
    boxes = config["roi_head"]["bbox_head"]
    pyramid, channels, carafe = _neck(config["neck"])
    upsample, carafe_of_masks = _upsample(config["roi_head"]["mask_head"]) if masks else ("deconv", {})
    if any(found not in ({}, PUBLISHED_CARAFE) for found in (carafe, carafe_of_masks)):
        raise InputError(f"CARAFE with {carafe or carafe_of_masks} has no counterpart here: only {PUBLISHED_CARAFE}")
    arguments = {
        "num_classes": boxes["num_classes"],
        "masks": masks,
        "channels": channels,
        "hidden": boxes["fc_out_channels"],
        "pyramid": pyramid,
        "score_threshold": config["test_cfg"]["rcnn"]["score_thr"],
        "max_detections": config["test_cfg"]["rcnn"]["max_per_img"],
        **_statistics(config["data_preprocessor"]),
    }
    return arguments | ({"mask_upsample": upsample} if masks else {})


def rename(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a whole detector under our names; those of no known part keep theirs.

    The background is their last class and our first; for boxes and masks it is an unused row here. Where their
    images were BGR the first convolution's channels are turned round, since ours are RGB.
    """
    backbone = {
        name.removeprefix("backbone."): each for name, each in state_dict.items() if name.startswith("backbone.")
    }
    renamed = {f"backbone.model.{name}": each for name, each in rename_backbone(backbone).items()}
    first = "backbone.model.conv1.weight"
    if not config["data_preprocessor"]["bgr_to_rgb"] and first in renamed:
        renamed[first] = renamed[first].flip(1)
    for name, tensor in state_dict.items():
        if not name.startswith("backbone."):
            ours = substitute(NAMES, name)
            renamed[ours] = _with_background(ours, tensor)
    return renamed


def new_neck(config: Mapping[str, Any]) -> nn.Module:
    """The pyramid that a config describes, freshly initialised.

    Raises:
        InputError: a neck or an argument that has no counterpart here.
    """
    kind, channels, carafe = _neck(config)
    if kind == "carafe":
        return CARAFEPyramid(config["in_channels"], channels, **carafe)
    return Pyramid(config["in_channels"], channels, extra=config["num_outs"] - len(config["in_channels"]))


def new_mask_head(config: Mapping[str, Any]) -> MaskHead:
    """The mask head that a config describes, freshly initialised, without a background.

    Raises:
        InputError: an argument that has no counterpart here.
    """
    upsample, carafe = _upsample(config)
    return MaskHead(
        config["in_channels"],
        config["num_classes"],
        channels=config["conv_out_channels"],
        depth=config["num_convs"],
        upsample=upsample,
        **carafe,
    )


def _with_background(name: str, tensor: Tensor) -> Tensor:
    if "box_predictor.cls_score." in name:
        return tensor.roll(1, 0)
    unused = 4 if "box_predictor.bbox_pred." in name else 1 if "mask_fcn_logits." in name else 0
    return torch.cat([tensor.new_zeros(unused, *tensor.shape[1:]), tensor]) if unused else tensor


def _neck(config: Mapping[str, Any]) -> tuple[str, int, dict[str, Any]]:
    """Which pyramid, its width, and CARAFE's arguments."""
    if not isinstance(config, Mapping):
        raise InputError(f"The neck {' and '.join(each['type'] for each in config)} has no counterpart here")
    plain = {"type", "in_channels", "out_channels", "num_outs"}
    if config["type"] == "FPN" and config.keys() <= plain:
        return "fpn", config["out_channels"], {}
    fixed = {"start_level": 0, "end_level": -1, "norm_cfg": None, "act_cfg": None, "order": ["conv", "norm", "act"]}
    others = {key: value for key, value in config.items() if key not in plain | {"upsample_cfg"}}
    if config["type"] == "FPN_CARAFE" and others.items() <= fixed.items():
        return "carafe", config["out_channels"], _carafe(config["upsample_cfg"])
    raise InputError(f"neck={dict(config)!r} has no counterpart here: only FPN and FPN_CARAFE of the published kind")


def _upsample(config: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
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


def _statistics(config: Mapping[str, Any]) -> dict[str, list[float]]:
    """Mean and deviation of RGB in 0..1."""
    order = 1 if config["bgr_to_rgb"] else -1
    return {key: [value / 255 for value in config[key][::order]] for key in ("mean", "std")}


def _at(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
