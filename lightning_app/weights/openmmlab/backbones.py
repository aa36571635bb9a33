"""OpenMMLab's backbones as ours."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_app.backbones.base import Backbone
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab import convolutional, networks, transformers
from lightning_app.weights.openmmlab.names import BackboneRule, Tensors, set_norm, substitute
from lightning_app.weights.openmmlab.necks import neck_arguments

IGNORED = {"type", "init_cfg", "norm_eval", "pretrained", "frozen_stages", "with_cp", "zero_init_residual"}
IGNORED |= {"drop_path_rate", "drop_rate", "attn_drop_rate", "init_values", "layer_scale_init_value"}  # training only

RULES: dict[str, BackboneRule] = convolutional.RULES | transformers.RULES | networks.RULES


def new_backbone(config: Mapping[str, Any], neck: Mapping[str, Any] | None = None) -> Backbone:
    """The backbone that an mmsegmentation config describes, freshly initialised, with its neck.

    Raises:
        InputError: a backbone or an argument that has no counterpart here.
    """
    backbone = rule_of(config).cls(**backbone_arguments(config, neck))
    if "norm_cfg" in config and config["norm_cfg"]["type"] != "LN":
        set_norm(backbone, config)
    return backbone


def rule_of(config: Mapping[str, Any]) -> BackboneRule:
    """How the backbone of this config is converted.

    Raises:
        InputError: it has no counterpart here.
    """
    kind = config["type"]
    if kind not in RULES:
        known = ", ".join(RULES)
        raise InputError(f'OpenMMLab\'s backbone "{kind}" has no counterpart here, only {known}')
    return RULES[kind]


def backbone_arguments(config: Mapping[str, Any], neck: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The arguments of our class that make it the backbone of a config, with its neck.

    Raises:
        InputError: a backbone or an argument that has no counterpart here.
    """
    arguments = converted_arguments(config, rule_of(config))
    return arguments | ({"neck": neck_arguments(neck)} if neck else {})


def converted_arguments(config: Mapping[str, Any], rule: BackboneRule) -> dict[str, Any]:
    """The arguments of our class that a rule makes of a config.

    Raises:
        InputError: an argument that has no counterpart here.
    """
    for key in config.keys() - rule.read - IGNORED:
        if key not in rule.fixed or config[key] != rule.fixed[key]:
            raise InputError(f'{config["type"]} has the argument "{key}" ({config[key]!r}): no counterpart here')
    return rule.build(config)


def rename_backbone(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> Tensors:
    """The tensors of an mmsegmentation backbone under our names."""
    return renamed(config, state_dict, rule_of(config))


def renamed(config: Mapping[str, Any], state_dict: Mapping[str, Tensor], rule: BackboneRule) -> Tensors:
    """The tensors of a backbone under the names that a rule has for them."""
    kept = {name: each for name, each in state_dict.items() if not name.endswith("relative_position_index")}
    return rule.finish({substitute(rule.names, name): each for name, each in kept.items()}, config)
