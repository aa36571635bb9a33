"""OpenMMLab's decode heads as ours: the rules of all of them, and what is the same in each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_app.heads.base import ContextHead
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab import knet, points
from lightning_app.weights.openmmlab.attention_heads import ATTENTION
from lightning_app.weights.openmmlab.head_rule import HeadRule, as_list, only
from lightning_app.weights.openmmlab.names import set_norm, substitute
from lightning_app.weights.openmmlab.pyramid_heads import PYRAMIDS
from lightning_app.weights.openmmlab.transformer_heads import TRANSFORMERS

Config = Mapping[str, Any] | Sequence[Mapping[str, Any]]  # of a head, or of a cascade's two
RULES = ATTENTION | PYRAMIDS | TRANSFORMERS
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
    if kinds == ["FPNHead", "PointHead"]:
        return points.flattened(*config)
    if kinds != ["FCNHead", "OCRHead"]:
        known = "only FCNHead and OCRHead, FPNHead and PointHead"
        raise InputError(f"The cascade of {' and '.join(kinds)} has no counterpart here, {known}")
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
    return dict(zip(as_list(config.get(f"{prefix}in_index", -1)), as_list(widths), strict=True)) if widths else {}
