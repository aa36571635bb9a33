"""OpenMMLab's decode heads as ours: one row per head, config keys -> our arguments and their names -> our names."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from lightning_app.errors import InputError
from lightning_app.heads.base import ContextHead
from lightning_app.heads.ccnet import CCNet
from lightning_app.heads.emanet import EMANet
from lightning_app.heads.fcn import FCN
from lightning_app.heads.nonlocal_net import NonLocal


@dataclass(frozen=True)
class HeadRule:
    """How one mmsegmentation head becomes one of ours.

    Args:
        head: our class.
        arguments: their config key -> our argument; a function turns the value into (several of) our arguments, and
            raises :class:`InputError` for a value we cannot reproduce.
        fixed: our arguments that make the head theirs where our defaults are the paper's.
        names: (pattern, replacement) tried in order on each tensor's name; the first that matches at its start counts.
            Names that none matches stay.
        level: the argument that takes ``in_index``: "level" for one level, "levels" for several.
        dropped: pattern of tensors that have no effect and no counterpart here.
    """

    head: type[ContextHead]
    arguments: Mapping[str, str | Callable[[Any], dict[str, Any]]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[tuple[str, str], ...] = ()
    level: str = "level"
    dropped: str = r"(?!)"


def only(key: str, *allowed: Any) -> Callable[[Any], dict[str, Any]]:
    """An argument that we take at some values only, because they are all that was ever released."""

    def check(value: Any) -> dict[str, Any]:
        if value not in allowed:
            raise InputError(f"{key}={value!r} is not supported: it must be {' or '.join(map(repr, allowed))}")
        return {}

    return check


BLOCK_HEAD = (
    (r"convs\.0\.", "reduce."),
    (r"convs\.1\.", "project."),
    (r"conv_cat\.", "fuse."),
)  # the skeleton that NLHead, GCHead, CCHead and DNLHead share

RULES: dict[str, HeadRule] = {
    "CCHead": HeadRule(
        CCNet,
        {"recurrence": "recurrence", "concat_input": "concat_input"},
        names=((r"cca\.(query|key|value)_conv\.", r"block.\1."), (r"cca\.gamma\.scale", "block.gamma"), *BLOCK_HEAD),
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
    "FCNHead": HeadRule(
        FCN,
        {
            "num_convs": "num_convs",
            "kernel_size": "kernel_size",
            "dilation": "dilation",
            "concat_input": "concat_input",
        },
        names=((r"conv_cat\.", "fuse."),),
        level="levels",
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
}

SHARED: dict[str, str | Callable[[Any], dict[str, Any]]] = {
    "channels": "channels",
    "align_corners": "align_corners",
    "dropout_ratio": lambda ratio: {"dropout": max(ratio, 0)},  # -1 says none
    "conv_cfg": only("conv_cfg", None),
    "act_cfg": only("act_cfg", {"type": "ReLU"}, {"type": "ReLU", "inplace": True}),
    "input_transform": only("input_transform", None, "resize_concat", "multiple_select"),
}
IGNORED = {"type", "num_classes", "in_channels", "in_index", "norm_cfg"}  # read elsewhere
IGNORED |= {"loss_decode", "loss_se_decode", "use_se_loss", "sampler", "ignore_index", "init_cfg"}  # training only


def build_head(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> ContextHead:
    """The head that an mmsegmentation ``decode_head`` config describes, with its weights.

    Args:
        config: the ``decode_head`` (or ``auxiliary_head``) dict, ``type`` included.
        state_dict: its tensors, without the ``decode_head.`` prefix.

    Raises:
        InputError: for a head, an argument or a tensor that has no counterpart here, and for tensors that are missing.
    """
    head = new_head(config)
    load_strictly(head, rename(config["type"], state_dict), what=config["type"])
    return head


def new_head(config: Mapping[str, Any]) -> ContextHead:
    """The head that a config describes, freshly initialised."""
    rule = _rule(config["type"])
    arguments = dict(rule.fixed)
    for key, value in config.items():
        target = rule.arguments.get(key) or SHARED.get(key)
        if target is None:
            if key not in IGNORED:
                raise InputError(
                    f'{config["type"]} has the argument "{key}" ({value!r}), which has no counterpart here'
                )
        elif isinstance(target, str):
            arguments[target] = value
        else:
            arguments |= target(value)

    index, widths = config.get("in_index", -1), config["in_channels"]
    levels = dict(zip(index, widths, strict=True)) if isinstance(index, list | tuple) else {index: widths}
    arguments[rule.level] = tuple(levels) if rule.level == "levels" else next(iter(levels))
    in_channels = [levels.get(level, 0) for level in range(max(max(levels) + 1, 4))]
    head = rule.head(in_channels, config["num_classes"], **arguments)
    _set_norm(head, config)
    return head


def rename(kind: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an mmsegmentation head under our names, those without effect left out."""
    rule = _rule(kind)
    names = (*rule.names, (r"conv_seg\.", "classifier."))
    renamed = {}
    for name, tensor in state_dict.items():
        if re.match(rule.dropped, name):
            continue
        for pattern, replacement in names:
            ours, count = re.subn(rf"\A{pattern}", replacement, name)
            if count:
                break
        renamed[ours] = tensor.reshape(-1) if ours.endswith("gamma") else tensor  # theirs have no dimension
    return renamed


def load_strictly(module: nn.Module, state_dict: Mapping[str, Tensor], *, what: str) -> None:
    """Load every tensor, or none and say in one line which do not fit."""
    own = module.state_dict()
    faults = {
        "missing": [name for name in own if name not in state_dict],
        "unknown": [name for name in state_dict if name not in own],
        "of another shape": [
            f"{name} ({list(tensor.shape)} instead of {list(own[name].shape)})"
            for name, tensor in state_dict.items()
            if name in own and tensor.shape != own[name].shape
        ],
    }
    found = [f"{len(names)} {fault}: {', '.join(names[:3])}" for fault, names in faults.items() if names]
    if found:
        raise InputError(f"The weights do not fit {what}: {'; '.join(found)}")
    module.load_state_dict(state_dict)


def _rule(kind: str) -> HeadRule:
    if kind not in RULES:
        raise InputError(f'OpenMMLab\'s "{kind}" has no counterpart here; those that have: {", ".join(sorted(RULES))}')
    return RULES[kind]


def _set_norm(head: nn.Module, config: Mapping[str, Any]) -> None:
    norm = dict(config.get("norm_cfg") or {"type": None})
    kind = norm.pop("type")
    if kind not in ("BN", "SyncBN"):
        raise InputError(f"{config['type']} has the normalisation {kind!r}: only BN and SyncBN have a counterpart here")
    norm.pop("requires_grad", None)
    if unknown := norm.keys() - {"eps", "momentum"}:
        raise InputError(f"norm_cfg has {sorted(unknown)}, which have no counterpart here")
    for module in head.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eps, module.momentum = norm.get("eps", module.eps), norm.get("momentum", module.momentum)
