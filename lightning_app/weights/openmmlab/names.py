"""What converts a part: its config's keys, and patterns that turn OpenMMLab's names into ours."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from lightning_app.backbones.base import Backbone
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.util.errors import InputError

Tensors = dict[str, Tensor]
Names = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BackboneRule:
    """How one mmsegmentation backbone becomes one of ours.

    Args:
        build: its arguments -> those of our class.
        names: (pattern, replacement) tried in order on each tensor's name, at its start, until one matches.
        read: the arguments that ``build`` reads.
        fixed: arguments that are known at one value, which changes nothing.
        cls: our class.
        finish: what is done with the renamed tensors, where names are not all: (tensors, arguments) -> tensors.
    """

    build: Callable[[Mapping[str, Any]], dict[str, Any]]
    names: Names = ()
    read: frozenset[str] = frozenset()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    cls: type[Backbone] = TimmBackbone
    finish: Callable[[Tensors, Mapping[str, Any]], Tensors] = lambda tensors, config: tensors


def substitute(names: Iterable[tuple[str, str]], name: str) -> str:
    """``name`` after the first (pattern, replacement) that matches at its start."""
    for pattern, replacement in names:
        ours, count = re.subn(rf"\A{pattern}", replacement, name)
        if count:
            return ours
    return name


def set_norm(module: nn.Module, config: Mapping[str, Any]) -> None:
    """Give batch norms the settings of ``norm_cfg``.

    Raises:
        InputError: it is another kind of normalisation.
    """
    norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d)]
    if not norms:
        return
    norm = dict(config.get("norm_cfg") or {"type": None})
    kind = norm.pop("type")
    if kind not in ("BN", "SyncBN"):
        raise InputError(f"{config['type']} has the normalisation {kind!r}: only BN and SyncBN have a counterpart here")
    norm.pop("requires_grad", None)
    if unknown := norm.keys() - {"eps", "momentum"}:
        raise InputError(f"norm_cfg has {sorted(unknown)}, which have no counterpart here")
    for each in norms:
        each.eps, each.momentum = norm.get("eps", each.eps), norm.get("momentum", each.momentum)


def chosen(config: Mapping[str, Any], known: Mapping[int, int], default: Iterable[int]) -> list[int]:
    """Our number of each level that ``out_indices`` names.

    Raises:
        InputError: one has no counterpart here.
    """
    indices = list(config.get("out_indices", default))
    if missing := [index for index in indices if index not in known]:
        raise InputError(f"{config['type']} with out_indices {indices}: {missing} have no counterpart here")
    return [known[index] for index in indices]
