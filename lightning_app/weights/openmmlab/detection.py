"""OpenMMLab's detectors as instance segmentors: mmdetection's configurations and names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_app.tasks.instance.cascade import PRECISIONS
from lightning_app.tasks.instance.network import InstanceSegmentor
from lightning_app.tasks.instance.roi_align import GROIE
from lightning_app.tasks.instance.roi_heads import BOX, MASK
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.backbones import new_backbone, rename_backbone
from lightning_app.weights.openmmlab.convert import load_strictly
from lightning_app.weights.openmmlab.detection_parts import neck_of, regions_of, upsample_of
from lightning_app.weights.openmmlab.names import substitute
from lightning_app.weights.openmmlab.plugins import ATTENTION
from lightning_app.weights.openmmlab.tensors import read_tensors

PUBLISHED_CARAFE = {"kernel": 5, "groups": 1, "encoder_kernel": 3, "encoder_dilation": 1, "compressed": 64}
PUBLISHED_GROIE = {"kernel": 5, "attention": GROIE}
ROUND, NUMBER = r"roi_head\.", r"\.((?:\d\.)?)"  # of a cascade, whose heads are numbered
NAMES = (
    (r"neck\.lateral_convs\.(\d+)\.conv\.", r"fpn.inner_blocks.\1.0."),
    (r"neck\.fpn_convs\.(\d+)\.conv\.", r"fpn.layer_blocks.\1.0."),
    (r"neck\.upsample_modules\.(\d+)\.channel_compressor\.", r"fpn.upsample.\1.compressor."),
    (r"neck\.upsample_modules\.(\d+)\.content_encoder\.", r"fpn.upsample.\1.encoder."),
    (r"rpn_head\.rpn_conv\.", "rpn.head.conv.0.0."),
    (r"rpn_head\.rpn_cls\.", "rpn.head.cls_logits."),
    (r"rpn_head\.rpn_reg\.", "rpn.head.bbox_pred."),
    (r"neck\.0\.lateral_convs\.(\d+)\.conv\.", r"fpn.inner_blocks.\1.0."),
    (r"neck\.0\.fpn_convs\.(\d+)\.conv\.", r"fpn.layer_blocks.\1.0."),
    (r"neck\.1\.refine\.(\w+)\.conv\.", r"fpn.balance.refine.\1."),
    (rf"{ROUND}bbox_head{NUMBER}shared_fcs\.0\.", r"roi_heads.\1box_head.fc6."),
    (rf"{ROUND}bbox_head{NUMBER}shared_fcs\.1\.", r"roi_heads.\1box_head.fc7."),
    (rf"{ROUND}bbox_head{NUMBER}fc_cls\.", r"roi_heads.\1box_predictor.cls_score."),
    (rf"{ROUND}bbox_head{NUMBER}fc_reg\.", r"roi_heads.\1box_predictor.bbox_pred."),
    (rf"{ROUND}mask_head{NUMBER}convs\.(\d+)\.conv\.", r"roi_heads.\1mask_head.convs.\2.0."),
    (rf"{ROUND}mask_head{NUMBER}upsample\.channel_compressor\.", r"roi_heads.\1mask_head.predictor.carafe.compressor."),
    (rf"{ROUND}mask_head{NUMBER}upsample\.content_encoder\.", r"roi_heads.\1mask_head.predictor.carafe.encoder."),
    (rf"{ROUND}mask_head{NUMBER}upsample\.", r"roi_heads.\1mask_head.predictor.conv5_mask."),
    (rf"{ROUND}mask_head{NUMBER}conv_logits\.", r"roi_heads.\1mask_head.predictor.mask_fcn_logits."),
    (r"roi_head\.bbox_roi_extractor\.pre_module\.conv\.", "roi_heads.box_roi_pool.pre.0."),
    (r"roi_head\.mask_roi_extractor\.pre_module\.conv\.", "roi_heads.mask_roi_pool.pre.0."),
    (r"roi_head\.bbox_roi_extractor\.post_module\.", "roi_heads.box_roi_pool.post."),
    (r"roi_head\.mask_roi_extractor\.post_module\.", "roi_heads.mask_roi_pool.post."),
)

# What every published detector has, and what is looked at in testing: path in the configuration -> its value.
FIXED: dict[str, Any] = {
    "rpn_head.type": "RPNHead",
    "rpn_head.anchor_generator.scales": [8],
    "rpn_head.anchor_generator.ratios": [0.5, 1.0, 2.0],
    "rpn_head.anchor_generator.strides": [4, 8, 16, 32, 64],
    "rpn_head.bbox_coder.target_means": [0.0, 0.0, 0.0, 0.0],
    "rpn_head.bbox_coder.target_stds": [1.0, 1.0, 1.0, 1.0],
    "test_cfg.rpn.nms_pre": 1000,
    "test_cfg.rpn.max_per_img": 1000,
    "test_cfg.rpn.nms.iou_threshold": 0.7,
    "test_cfg.rpn.min_bbox_size": 0,
    "test_cfg.rcnn.nms": {"type": "nms", "iou_threshold": 0.5},
}
FIXED_OF_MASKS: dict[str, Any] = {
    "roi_head.mask_head.type": "FCNMaskHead",
    "roi_head.mask_head.num_convs": 4,
    "test_cfg.rcnn.mask_thr_binary": 0.5,
}
FIXED_OF_BOXES: dict[str, Any] = {
    "type": "Shared2FCBBoxHead",
    "roi_feat_size": 7,
    "bbox_coder.target_means": [0.0, 0.0, 0.0, 0.0],
}
ROUNDS = [[centre, centre, sides, sides] for centre, sides in PRECISIONS]  # of a cascade
KINDS = ("MaskRCNN", "FasterRCNN", "CascadeRCNN")


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
    heads, masks, cascade = config["roi_head"], "mask_head" in config["roi_head"], kind == "CascadeRCNN"
    _require(config, FIXED | (FIXED_OF_MASKS if masks else {}))
    rounds = heads["bbox_head"] if cascade else [heads["bbox_head"]]
    deviations = ROUNDS if cascade else ROUNDS[:1]
    for boxes, deviation in zip(rounds, deviations, strict=True):
        _require(boxes, FIXED_OF_BOXES | {"reg_class_agnostic": cascade, "bbox_coder.target_stds": deviation})
    extractors = [heads[f"{part}_roi_extractor"] for part in ("bbox", "mask")[: 1 + masks]]
    (regions, of_groie), *others = map(regions_of, extractors)
    if any(other != (regions, of_groie) for other in others) or of_groie not in ({}, PUBLISHED_GROIE):
        raise InputError(
            f"RoI extractors {extractors} have no counterpart here: only two alike, of the published kinds"
        )
    if (sides := [each["roi_layer"]["output_size"] for each in extractors]) != [BOX, MASK][: 1 + masks]:
        raise InputError(f"RoI extractors of {sides} cells a side have no counterpart here: only {BOX} and {MASK}")
    pyramid, channels, carafe = neck_of(config["neck"])
    upsample, carafe_of_masks = upsample_of(config["roi_head"]["mask_head"]) if masks else ("deconv", {})
    if any(found not in ({}, PUBLISHED_CARAFE) for found in (carafe, carafe_of_masks)):
        raise InputError(f"CARAFE with {carafe or carafe_of_masks} has no counterpart here: only {PUBLISHED_CARAFE}")
    arguments = {
        "num_classes": rounds[0]["num_classes"],
        "masks": masks,
        "channels": channels,
        "hidden": rounds[0]["fc_out_channels"],
        "pyramid": pyramid,
        "regions": regions,
        "cascade": cascade,
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
    renamed = {f"backbone.{name}": each for name, each in rename_backbone(config["backbone"], backbone).items()}
    first = "backbone.model.conv1.weight"
    if not config["data_preprocessor"]["bgr_to_rgb"] and first in renamed:
        renamed[first] = renamed[first].flip(1)
    for name, tensor in state_dict.items():
        if not name.startswith("backbone."):
            ours = substitute(NAMES, name)
            ours = substitute(ATTENTION, ours) if ".post." in ours else ours
            renamed[ours] = _with_background(ours, tensor, agnostic=config["type"] == "CascadeRCNN")
    return renamed


def _with_background(name: str, tensor: Tensor, *, agnostic: bool) -> Tensor:
    if "box_predictor.cls_score." in name:
        return tensor.roll(1, 0)
    unused = 4 if "box_predictor.bbox_pred." in name and not agnostic else 1 if "mask_fcn_logits." in name else 0
    return torch.cat([tensor.new_zeros(unused, *tensor.shape[1:]), tensor]) if unused else tensor


def _require(config: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    for path, value in values.items():
        found: Any = config
        for key in path.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        if found != value:
            raise InputError(f"{path}={found!r} has no counterpart here: only {value!r}")


def _statistics(config: Mapping[str, Any]) -> dict[str, list[float]]:
    """Mean and deviation of RGB in 0..1."""
    order = 1 if config["bgr_to_rgb"] else -1
    return {key: [value / 255 for value in config[key][::order]] for key in ("mean", "std")}
