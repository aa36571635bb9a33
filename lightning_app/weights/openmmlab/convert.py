"""OpenMMLab's checkpoints as segmentors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from lightning_app.backbones.timm import TimmBackbone
from lightning_app.heads.base import ContextHead
from lightning_app.heads.several import Several
from lightning_app.reading.specs import spec_of
from lightning_app.registry import HEADS
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.tasks.semantic.protocol import EvaluationProtocol
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.backbones import backbone_arguments, new_backbone, rename_backbone, rule_of
from lightning_app.weights.openmmlab.head_rule import loss_weight
from lightning_app.weights.openmmlab.heads import Config, head_arguments, joined, new_head, rename_head
from lightning_app.weights.openmmlab.names import set_norm
from lightning_app.weights.openmmlab.necks import rename_neck
from lightning_app.weights.openmmlab.points import SUBDIVISION
from lightning_app.weights.openmmlab.tensors import read_tensors

NORM_EPS = 1e-5  # of torch's batch norms
OWN_EPS = ("MobileNetV3", "LRASPPHead")  # timm's network has theirs, and our head an argument


def load_checkpoint(weights: str | Path | Mapping[str, Tensor], config: Mapping[str, Any]) -> Segmentor:
    """The published model with its weights, in evaluation mode: ``model(images)`` takes RGB in 0..1.

    Args:
        weights: a checkpoint file, which nothing is executed from, or its state dict.
        config: the model as mmsegmentation spells it: backbone, neck, decode_head, auxiliary_head, preprocess.

    Raises:
        InputError: an unreadable file; a part, an argument or a tensor that has no counterpart here; missing tensors.
    """
    state_dict = weights if isinstance(weights, Mapping) else read_tensors(Path(weights))
    config = as_the_weights_have_it(config, state_dict)
    segmentor = new_segmentor(config)
    what = "the model" if isinstance(weights, Mapping) else str(weights)
    load_strictly(segmentor, rename(config, state_dict), what=what)
    return segmentor.eval()


def new_segmentor(config: Mapping[str, Any]) -> Segmentor:
    """The model that a config describes, freshly initialised.

    Raises:
        InputError: a part or an argument that has no counterpart here.
    """
    backbone = new_backbone(config["backbone"], _neck(config))
    if preprocess := config.get("preprocess"):
        if not preprocess["bgr_to_rgb"]:
            raise InputError("bgr_to_rgb=False is not supported: images are RGB here")
        backbone.mean = tuple(value / 255 for value in preprocess["mean"])
        backbone.std = tuple(value / 255 for value in preprocess["std"])
    extra = _auxiliary_heads(config)
    auxiliary: ContextHead | None = None
    if len(extra) == 1:
        auxiliary = new_head(extra[0])
    elif extra:
        several = Several(backbone.channels, joined(extra[0])["num_classes"], **_several(extra)["init_args"])
        for head, each in zip(several.heads, extra, strict=True):
            set_norm(head, each)
        auxiliary = several
    decode = new_head(_decode_head(config))
    return Segmentor(backbone, decode, auxiliary, auxiliary_weight=_auxiliary_weight(extra))


def as_the_weights_have_it(config: Mapping[str, Any], weights: str | Path | Mapping[str, Tensor]) -> Mapping[str, Any]:
    """The config with what its own words leave open: the patches of a ViT have a bias in files of release 0.x only.

    Raises:
        InputError: an unreadable file.
    """
    backbone = config["backbone"]
    if backbone["type"] == "VisionTransformer" and "patch_bias" not in backbone:
        state_dict = weights if isinstance(weights, Mapping) else read_tensors(Path(weights))
        bias = "backbone.patch_embed.projection.bias" in state_dict
        return {**config, "backbone": {**backbone, "patch_bias": bias}}
    return config


def parts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of the model that a config describes, in the words of our command line.

    Raises:
        InputError: a part or an argument that has no counterpart here, or batch norms that no argument can describe.
    """

    def head(config: Config) -> dict[str, Any]:
        cls, _, arguments = head_arguments(config)
        return spec_of(cls, _plain(arguments))

    extra = _auxiliary_heads(config)
    for part in (config["backbone"], config["decode_head"], *extra):
        part = part if isinstance(part, Mapping) else part[-1]
        norm = part.get("norm_cfg") or {}
        told = norm.get("type") == "LN" or part["type"] in OWN_EPS
        if not told and norm.get("eps", NORM_EPS) != NORM_EPS:
            raise InputError(f"norm_cfg has eps {norm['eps']}: only {NORM_EPS} has a counterpart in our configurations")
    cls = rule_of(config["backbone"]).cls
    arguments = _plain(backbone_arguments(config["backbone"], _neck(config)))
    name = arguments["name"] if cls is TimmBackbone else ""
    if statistics := other_statistics(name, config.get("preprocess")):
        if not name:
            raise InputError(
                f"{config['backbone']['type']} with mean and std other than ImageNet's: no counterpart here"
            )
        arguments["changes"] = arguments.get("changes", {}) | statistics
    backbone = spec_of(cls, arguments)
    parts = {
        "backbone": backbone,
        "head": head(_decode_head(config)),
        "auxiliary": head(extra[0]) if len(extra) == 1 else _several(extra) if extra else None,
    }
    return parts | ({"auxiliary_weight": _auxiliary_weight(extra)} if extra else {})


def other_statistics(name: str, preprocess: Mapping[str, Any] | None) -> dict[str, list[float]]:
    """Mean and standard deviation of the images, in 0..1, where they are not those of timm's model."""
    if not preprocess:
        return {}
    own = timm.get_pretrained_cfg(name, allow_unregistered=False) if name else None
    ours = {"mean": own.mean, "std": own.std} if own else {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
    theirs = {key: [value / 255 for value in preprocess[key]] for key in ("mean", "std")}
    same = all(abs(a - b) < 1e-5 for key in ours for a, b in zip(ours[key], theirs[key], strict=True))
    return {} if same else theirs


def _plain(value: Any) -> Any:
    """Lists where there are tuples, as YAML and JSON have it."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def rename(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a whole mmsegmentation model under our names; those of no known part keep theirs."""
    extra = _auxiliary_heads(config)
    there = [f"auxiliary_head.{i}." for i in range(len(extra))] if len(extra) > 1 else ["auxiliary_head."]
    parts: dict[str, dict[str, Tensor]] = {
        prefix: {} for prefix in ("backbone.", "neck.", "decode_head.", *there, "auxiliary_head.", "")
    }
    for name, tensor in state_dict.items():
        prefix = next(prefix for prefix in parts if name.startswith(prefix))
        parts[prefix][name.removeprefix(prefix)] = tensor
    renamed = {"backbone.": rename_backbone(config["backbone"], parts["backbone."]), "": parts[""]}
    if neck := _neck(config):
        renamed["backbone.neck."] = rename_neck(neck, parts["neck."])
    else:  # the head holds it here
        parts["decode_head."] |= {f"neck.{name}": tensor for name, tensor in parts["neck."].items()}
    renamed["head."] = rename_head(_decode_head(config), parts["decode_head."])
    for i, each in enumerate(extra):
        renamed[f"auxiliary.heads.{i}." if len(extra) > 1 else "auxiliary."] = rename_head(each, parts[there[i]])
    if len(extra) != 1:
        renamed["auxiliary_head."] = parts["auxiliary_head."]
    return {prefix + name: tensor for prefix, part in renamed.items() for name, tensor in part.items()}


def protocol_of(config: Mapping[str, Any]) -> EvaluationProtocol:
    """How the published figures were measured."""
    test, align_corners = config["test_cfg"], joined(config["decode_head"]).get("align_corners", False)
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
    neck = {"neck": config["neck"]} if config.get("neck") and not _neck(config) else {}
    if isinstance(head, Mapping):
        return {**head, **neck}
    first, *others, last = head
    if last["type"] == "PointHead" and SUBDIVISION not in last:
        last = {**last, SUBDIVISION: config.get("test_cfg", {})}
    return [{**first, **neck}, *others, last]


def _neck(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The neck that our backbones hold; FPN is the head's."""
    neck: Mapping[str, Any] | None = config.get("neck")
    return neck if neck and neck["type"] != "FPN" else None


def _auxiliary_heads(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    extra = config.get("auxiliary_head") or []
    return [extra] if isinstance(extra, Mapping) else list(extra)


def _several(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several auxiliary heads as one part, as a configuration has it."""
    heads = []
    for config in configs:
        cls, _, arguments = head_arguments(config)
        slug = next(slug for slug, entry in HEADS.items() if entry.cls is cls)
        heads.append({"head": slug, **_plain(arguments)})
    return spec_of(Several, {"heads": heads})


def _auxiliary_weight(heads: Sequence[Mapping[str, Any]]) -> float:
    """The weight that the auxiliary heads share.

    Raises:
        InputError: they have several.
    """
    weights = {loss_weight(head.get("loss_decode", {})) for head in heads} or {0.0}
    if len(weights) > 1:
        raise InputError(f"Auxiliary heads of several loss weights, {sorted(weights)}, have no counterpart here")
    return weights.pop()
