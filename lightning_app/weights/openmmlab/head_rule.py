"""How one of mmsegmentation's heads becomes one of ours: config keys -> arguments, their names -> our names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_app.heads.base import ContextHead
from lightning_app.util.errors import InputError


def one(levels: tuple[int, ...]) -> dict[str, Any]:
    """The arguments of a head that reads one level."""
    if len(levels) != 1:
        raise InputError(f"in_index={list(levels)} is not supported: this head reads one level here")
    return {"level": levels[0]}


def several(levels: tuple[int, ...]) -> dict[str, Any]:
    """The arguments of a head that may read several levels."""
    return {"levels": levels}


def only(key: str, *allowed: Any) -> Callable[[Any], dict[str, Any]]:
    """An argument that we take at some values only, because nothing was ever released with another."""

    def check(value: Any) -> dict[str, Any]:
        if value not in allowed:
            raise InputError(f"{key}={value!r} is not supported: it must be {' or '.join(map(repr, allowed))}")
        return {}

    return check


def loss_weight(losses: Any) -> float:
    """The weight of a head's loss, or of its several losses together."""
    return float(sum(loss.get("loss_weight", 1.0) for loss in as_list(losses)))


def as_list(value: Any) -> Sequence[Any]:
    """A value that may stand alone or in a list."""
    return value if isinstance(value, list | tuple) else [value]


@dataclass(frozen=True)
class HeadRule:
    """How one mmsegmentation head becomes one of ours.

    Args:
        head: our class.
        arguments: their config key -> our argument; a function turns the value into (several of) our arguments, and
            raises ``InputError`` for a value we cannot reproduce.
        fixed: our arguments that make the head theirs where our defaults are the paper's.
        names: (pattern, replacement) tried in order on each tensor's name; the first that matches at its start counts.
            Names that none matches stay.
        levels: ``in_index`` -> our arguments.
        finest: the config key that holds the width of the finest level, where ``in_channels`` leaves it out.
        prepare: the config -> one whose keys can be read one by one.
    """

    head: type[ContextHead]
    arguments: Mapping[str, str | Callable[[Any], dict[str, Any]]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[tuple[str, str], ...] = ()
    levels: Callable[[tuple[int, ...]], dict[str, Any]] = one
    finest: str = ""
    prepare: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
