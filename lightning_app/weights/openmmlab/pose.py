"""mmpose's top-down heatmap checkpoints as pose estimators: its configurations and names."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_app.heads.base import ContextHead
from lightning_app.heads.fcn import FCN
from lightning_app.heads.simple_baseline import SimpleBaseline
from lightning_app.heads.vitpose import ViTPose
from lightning_app.reading.specs import spec_of
from lightning_app.tasks.pose.codec import Codec, Kind
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.backbones import converted_arguments, renamed
from lightning_app.weights.openmmlab.convert import load_strictly
from lightning_app.weights.openmmlab.names import BackboneRule, substitute
from lightning_app.weights.openmmlab.pose_backbones import RULES
from lightning_app.weights.openmmlab.tensors import read_tensors
from zoo.entry import ZooEntry
from zoo.errors import ZooError
from zoo.tasks.pose import details_of

CODECS = {
    "MSRAHeatmap": {"type", "input_size", "heatmap_size", "sigma", "unbiased", "blur_kernel_size"},
    "UDPHeatmap": {"type", "input_size", "heatmap_size", "sigma", "heatmap_type", "radius_factor", "blur_kernel_size"},
}
HEAD = {"type", "in_channels", "out_channels", "deconv_out_channels", "deconv_kernel_sizes", "final_layer", "loss"}
NECK = {"type", "scale_factor", "apply_relu", "select_index"}
NAMES = ((r"deconv_layers\.", "deconvolutions."), (r"final_layer\.", "classifier."))
PREPROCESS = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}
STRIDE = 4  # crop pixels per map pixel, of all published estimators here


def load_estimator(weights: str | Path | Mapping[str, Tensor], config: Mapping[str, Any]) -> PoseEstimator:
    """The published estimator with its weights, in evaluation mode: ``model(crops)`` takes RGB in 0..1.

    Args:
        weights: a checkpoint file, which nothing is executed from, or its state dict.
        config: the model as mmpose spells it: backbone, neck, head, codec, preprocess.

    Raises:
        InputError: an unreadable file; a part, an argument or a tensor that has no counterpart here; missing tensors.
    """
    state_dict = weights if isinstance(weights, Mapping) else read_tensors(Path(weights))
    model = new_estimator(config)
    load_strictly(model, rename(config, state_dict), what="the model" if isinstance(weights, Mapping) else str(weights))
    return model.eval()


def upstream_config(entry: ZooEntry) -> dict[str, Any]:
    """The published model as mmpose's config spells it: backbone, neck, head, codec and preprocess.

    Raises:
        ZooError: the weights are not mmpose's.
    """
    details = details_of(entry)
    if details.codec is None or details.heatmap_head is None:
        raise ZooError(f"{entry.id} holds its own config: its format is {entry.format}")
    height, width = details.input_size
    sizes = {"input_size": [width, height], "heatmap_size": [width // STRIDE, height // STRIDE]}
    return deepcopy(
        {
            "backbone": dict(entry.backbone.upstream),
            "neck": details.neck,
            "head": details.heatmap_head,
            "codec": details.codec | sizes,
            "preprocess": PREPROCESS,
        }
    )


def new_estimator(config: Mapping[str, Any]) -> PoseEstimator:
    """The estimator that a config describes, freshly initialised.

    Raises:
        InputError: a part or an argument that has no counterpart here.
    """
    backbone = _rule(config).cls(**converted_arguments(config["backbone"], _rule(config)))
    if preprocess := config.get("preprocess"):
        if not preprocess["bgr_to_rgb"]:
            raise InputError("bgr_to_rgb=False is not supported: images are RGB here")
        backbone.mean = tuple(value / 255 for value in preprocess["mean"])
        backbone.std = tuple(value / 255 for value in preprocess["std"])
    cls, arguments = _head(config)
    head = cls(backbone.channels, config["head"]["out_channels"], **arguments)
    return PoseEstimator(backbone, head, codec_of(config["codec"]))


def parts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of the model that a config describes, in the words of our command line.

    Raises:
        InputError: a part or an argument that has no counterpart here.
    """
    backbone, (head, arguments) = _rule(config).cls, _head(config)
    codec = codec_of(config["codec"])
    return {
        "backbone": spec_of(backbone, converted_arguments(config["backbone"], _rule(config))),
        "head": spec_of(head, arguments),
        "codec": {name: list(each) if isinstance(each, tuple) else each for name, each in vars(codec).items()},
    }


def rename(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a whole mmpose model under our names; those of no known part keep theirs.

    Files of release 0.x call the head ``keypoint_head``.
    """
    parts: dict[str, dict[str, Tensor]] = {"backbone.": {}, "keypoint_head.": {}, "head.": {}, "": {}}
    for name, tensor in state_dict.items():
        prefix = next(prefix for prefix in parts if name.startswith(prefix))
        parts[prefix][name.removeprefix(prefix)] = tensor
    backbone = renamed(config["backbone"], parts["backbone."], _rule(config))
    head = {substitute(NAMES, name): tensor for name, tensor in (parts["keypoint_head."] | parts["head."]).items()}
    return (
        {f"backbone.{name}": tensor for name, tensor in backbone.items()}
        | {f"head.{name}": tensor for name, tensor in head.items()}
        | parts[""]
    )


def codec_of(config: Mapping[str, Any]) -> Codec:
    """The codec that an mmpose config describes; its sizes are (width, height).

    Raises:
        InputError: a codec or an argument that has no counterpart here.
    """
    name = config["type"]
    if name not in CODECS:
        raise InputError(f'mmpose\'s codec "{name}" has no counterpart here: only {", ".join(CODECS)}')
    _check_keys(config, CODECS[name], name)
    kind: Kind
    if name == "MSRAHeatmap":
        kind = "dark" if config.get("unbiased") else "msra"
    else:
        kind = "udp_combined" if config.get("heatmap_type") == "combined" else "udp"
    names = {"sigma": "sigma", "blur_kernel_size": "blur_kernel", "radius_factor": "radius"}
    (width, height), (columns, rows) = config["input_size"], config["heatmap_size"]
    given = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
    return Codec(kind, (height, width), (rows, columns), **given)


def _rule(config: Mapping[str, Any]) -> BackboneRule:
    kind = config["backbone"]["type"]
    if kind not in RULES:
        raise InputError(f'mmpose\'s backbone "{kind}" has no counterpart here: only {", ".join(RULES)}')
    return RULES[kind]


def _head(config: Mapping[str, Any]) -> tuple[type[ContextHead], dict[str, Any]]:
    """Class and arguments of the head, which reads the last level, behind the neck."""
    head, neck = config["head"], config.get("neck") or {}
    if head["type"] != "HeatmapHead":
        raise InputError(f'mmpose\'s head "{head["type"]}" has no counterpart here: only HeatmapHead')
    _check_keys({name: each for name, each in head.items() if each is not None}, HEAD, "HeatmapHead")
    if neck and neck["type"] != "FeatureMapProcessor":
        raise InputError(f'mmpose\'s neck "{neck["type"]}" has no counterpart here: only FeatureMapProcessor')
    _check_keys(neck, NECK, "FeatureMapProcessor")
    widths = head.get("deconv_out_channels", (256, 256, 256)) or ()
    final = head.get("final_layer") or {"kernel_size": 1}
    kernel, scale = final.get("kernel_size", 1), neck.get("scale_factor", 1.0)
    what = f"HeatmapHead with deconv_out_channels {list(widths)}, final_layer {final} and the neck {neck}"
    if widths and kernel == 1 and scale == 1 and len(set(widths)) == 1:
        return SimpleBaseline, {"channels": widths[0], "kernels": list(head.get("deconv_kernel_sizes", (4, 4, 4)))}
    if not widths and kernel == 1 and scale == 1:
        width = head["in_channels"]
        return FCN, {"channels": width, "num_convs": 0, "concat_input": False, "levels": [-1], "dropout": 0.0}
    if not widths and final == {"kernel_size": 3, "padding": 1} and neck.get("apply_relu") and scale == int(scale):
        return ViTPose, {"scale": int(scale)}
    raise InputError(f"{what} has no counterpart here")


def _check_keys(config: Mapping[str, Any], known: set[str], what: str) -> None:
    if unknown := config.keys() - known:
        raise InputError(f"{what} has the arguments {', '.join(sorted(unknown))}: no counterpart here")
