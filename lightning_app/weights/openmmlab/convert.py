"""OpenMMLab's checkpoints as segmentors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.heads.base import ContextHead
from lightning_app.tasks.semantic.inference import EvaluationProtocol
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.backbones import backbone_arguments, new_backbone, rename_backbone
from lightning_app.weights.openmmlab.heads import Config, head_arguments, joined, loss_weight, new_head, rename_head
from lightning_app.weights.openmmlab.tensors import read_tensors

NORM_EPS = 1e-5  # of torch's batch norms


def load_checkpoint(weights: str | Path | Mapping[str, Tensor], config: Mapping[str, Any]) -> Segmentor:
    """The published model with its weights, in evaluation mode: ``model(images)`` takes RGB in 0..1.

    Args:
        weights: a checkpoint file, which nothing is executed from, or its state dict.
        config: the model as mmsegmentation spells it: backbone, neck, decode_head, auxiliary_head, preprocess.

    Raises:
        InputError: an unreadable file; a part, an argument or a tensor that has no counterpart here; missing tensors.
    """
    state_dict = weights if isinstance(weights, Mapping) else read_tensors(Path(weights))
    segmentor = new_segmentor(config)
    what = "the model" if isinstance(weights, Mapping) else str(weights)
    load_strictly(segmentor, rename(config, state_dict), what=what)
    return segmentor.eval()


def new_segmentor(config: Mapping[str, Any]) -> Segmentor:
    """The model that a config describes, freshly initialised.

    Raises:
        InputError: a part or an argument that has no counterpart here.
    """
    backbone = new_backbone(config["backbone"])
    if preprocess := config.get("preprocess"):
        if not preprocess["bgr_to_rgb"]:
            raise InputError("bgr_to_rgb=False is not supported: images are RGB here")
        backbone.mean = tuple(value / 255 for value in preprocess["mean"])
        backbone.std = tuple(value / 255 for value in preprocess["std"])
    extra = config.get("auxiliary_head")
    return Segmentor(
        backbone,
        new_head(_decode_head(config)),
        new_head(extra) if extra else None,
        auxiliary_weight=loss_weight(extra.get("loss_decode", {})) if extra else 0.0,
    )


def parts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of the model that a config describes, in the words of our command line.

    Raises:
        InputError: a part or an argument that has no counterpart here, or batch norms that no argument can describe.
    """

    def head(config: Config) -> dict[str, Any]:
        cls, _, arguments = head_arguments(config)
        return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": _plain(arguments)}

    for part in (config["backbone"], config["decode_head"], config.get("auxiliary_head") or {}):
        eps = (part if isinstance(part, Mapping) else part[-1]).get("norm_cfg", {}).get("eps", NORM_EPS)
        if eps != NORM_EPS:
            raise InputError(f"norm_cfg has eps {eps}: only {NORM_EPS} has a counterpart in our configurations")
    extra = config.get("auxiliary_head")
    backbone = {
        "class_path": "lightning_app.backbones.timm.TimmBackbone",
        "init_args": backbone_arguments(config["backbone"]),
    }
    parts = {"backbone": backbone, "head": head(_decode_head(config)), "auxiliary": head(extra) if extra else None}
    return parts | ({"auxiliary_weight": loss_weight(extra.get("loss_decode", {}))} if extra else {})


def _plain(value: Any) -> Any:
    """Lists where there are tuples, as YAML and JSON have it."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def rename(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a whole mmsegmentation model under our names; those of no known part keep theirs."""
    parts: dict[str, dict[str, Tensor]] = {"backbone.": {}, "decode_head.": {}, "auxiliary_head.": {}, "": {}}
    for name, tensor in state_dict.items():
        prefix = next(prefix for prefix in parts if name.startswith(prefix))
        if name.startswith("neck."):  # the head holds it here
            prefix = "decode_head."
        parts[prefix][name.removeprefix(prefix)] = tensor
    renamed = {
        "backbone.model.": rename_backbone(parts["backbone."]),
        "head.": rename_head(_decode_head(config), parts["decode_head."]),
        "": parts[""],
    }
    if config.get("auxiliary_head"):
        renamed["auxiliary."] = rename_head(config["auxiliary_head"], parts["auxiliary_head."])
    else:
        renamed["auxiliary_head."] = parts["auxiliary_head."]
    return {prefix + name: tensor for prefix, part in renamed.items() for name, tensor in part.items()}


def protocol_of(config: Mapping[str, Any]) -> EvaluationProtocol:
    """How the published figures were measured."""
    test, align_corners = config["test_cfg"], joined(config["decode_head"])["align_corners"]
    if test["mode"] == "whole":
        return EvaluationProtocol(align_corners=align_corners)
    (height, width), (down, across) = test["crop_size"], test["stride"]
    return EvaluationProtocol("slide", crop=(height, width), stride=(down, across), align_corners=align_corners)


def build_head(config: Config, state_dict: Mapping[str, Tensor]) -> ContextHead:
    """The head that an mmsegmentation ``decode_head`` config describes, with its weights.

    Args:
        config: the ``decode_head`` (or ``auxiliary_head``) dict, ``type`` included; or the list of a cascade's two. The
            OCR head of a cascade given alone needs the coarse logits: ``head(features, coarse=logits)``. FPNHead's
            neck may be given under "neck".
        state_dict: its tensors, without the ``decode_head.`` prefix; those of the neck with the prefix ``neck.``.

    Raises:
        InputError: for a head, an argument or a tensor that has no counterpart here, and for tensors that are missing.
    """
    head = new_head(config)
    load_strictly(head, rename_head(config, state_dict), what=joined(config)["type"])
    return head


def load_strictly(module: nn.Module, state_dict: Mapping[str, Tensor], *, what: str) -> None:
    """Load every tensor, or none and say in one line which do not fit.

    Batch norms' step counters may be missing, as from files of old releases.

    Raises:
        InputError: tensors are missing, unknown, of another shape or kind, or hold what is no number.
    """
    own = module.state_dict()
    state_dict = {name: own[name] for name in own if name.endswith("num_batches_tracked")} | dict(state_dict)
    common = {name: tensor for name, tensor in state_dict.items() if name in own}
    faults = {
        "missing": [name for name in own if name not in state_dict],
        "unknown": [name for name in state_dict if name not in own],
        "of another shape": [
            f"{name} ({list(tensor.shape)} instead of {list(own[name].shape)})"
            for name, tensor in common.items()
            if tensor.shape != own[name].shape
        ],
        "of another kind": [
            f"{name} ({tensor.dtype} instead of {own[name].dtype})"
            for name, tensor in common.items()
            if _kind(tensor) != _kind(own[name])
            and not (name.endswith("num_batches_tracked") and _kind(tensor) == "float")  # a counter, however written
        ],
        "that are not finite": [
            name
            for name, tensor in common.items()
            if tensor.is_floating_point() and not tensor.is_meta and not tensor.isfinite().all()
        ],
    }
    found = [
        f"{len(names)} {fault}: {', '.join(name[:120] for name in names[:3])}"
        for fault, names in faults.items()
        if names
    ]
    if found:
        raise InputError(f"The weights do not fit {what}: {'; '.join(found)}")
    module.load_state_dict(state_dict)


def _kind(tensor: Tensor) -> str:
    """Which tensors may stand for one another: dense real numbers of any precision, else those of one type."""
    plain = tensor.layout == torch.strided and not tensor.is_quantized
    real = "float" if tensor.is_floating_point() and tensor.dtype.itemsize > 1 else str(tensor.dtype)
    return real if plain else f"{tensor.layout} {tensor.dtype}"


def _decode_head(config: Mapping[str, Any]) -> Config:
    head: Config = config["decode_head"]
    if neck := config.get("neck"):
        if not isinstance(head, Mapping):
            raise InputError(f"A cascade behind the neck {neck['type']} has no counterpart here")
        return {**head, "neck": neck}
    return head
