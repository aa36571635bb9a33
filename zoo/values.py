"""Values of an index file: which may stand there, of which types, and how a wrong one is told."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from zoo.errors import ZooError, shown

_LONGEST: Final = 2000  # characters of a text
_LARGEST: Final = 10**15  # of a whole number
_DEEPEST: Final = 8  # tables inside tables
_PLAIN: Final = frozenset({str, int, float, bool, dict, list, tuple})  # types of most values


class FieldError(ZooError):
    """A field of an entry is wrong; ``field`` says which, so that the index can name the line."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


def check_field(record: object, name: str, good: bool, rule: str) -> None:
    """Raise a FieldError with the value and its rule unless it is right."""
    if not good:
        raise FieldError(name, f"{quoted(getattr(record, name))}: {rule}")


def check_types(record: object, kinds: Mapping[str, tuple[type, ...]]) -> None:
    """Raise a FieldError where a field has another type than the record says, is empty, or cannot stand in an index."""
    for name, allowed in kinds.items():
        value = getattr(record, name)
        kind = type(value)
        if value is None and kind in allowed:
            continue
        nested = kind not in _PLAIN and is_dataclass(value)
        if kind not in allowed and not (nested and isinstance(value, allowed)):
            raise FieldError(name, f"{quoted(value)} is not {' or '.join(kind.__name__ for kind in allowed)}")
        if value == "":
            raise FieldError(name, "is empty")
        if not nested and (reason := unfit(value)):
            raise FieldError(name, f"{quoted(value)}: {reason}")


@cache
def kinds_of(record: type) -> dict[str, tuple[type, ...]]:
    """The types that each field of a dataclass may have; an int does where a float is asked."""
    hints = get_type_hints(record)
    return {each.name: _kinds(hints[each.name]) for each in fields(record)}


def _kinds(hint: Any) -> tuple[type, ...]:
    if get_origin(hint) in (Union, UnionType):
        return tuple(kind for part in get_args(hint) for kind in _kinds(part))
    if get_origin(hint) is Literal:
        return (str,)
    kind = get_origin(hint) or hint
    return (float, int) if kind is float else (kind,)


def quoted(value: object) -> str:
    """A value as the file spells it, fit for a line."""
    return f"'{shown(value)}'" if isinstance(value, str) else shown(value)


def unfit(value: object, depth: int = 0) -> str:
    """Why a value of a file cannot stand in an entry; empty where it can: printable, finite, small and plain."""
    if isinstance(value, str):
        return "" if len(value) <= _LONGEST and value.isprintable() else f"printable, {_LONGEST} characters at most"
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, (int, float)):
        return "" if abs(value) <= _LARGEST else f"a number of {_LARGEST:.0e} at most"
    if not isinstance(value, (dict, list, tuple)):
        return f"{type(value).__name__} has no place in an entry"
    if depth == _DEEPEST or len(value) > 1000:
        return f"{_DEEPEST} tables deep at most, and 1000 values long"
    for part in [*value, *value.values()] if isinstance(value, dict) else value:
        if reason := unfit(part, depth + 1):
            return reason
    return ""


def is_length(value: object) -> bool:
    """Whether it is a whole number of pixels, at least one."""
    return type(value) is int and value > 0


def is_pair(value: object) -> bool:
    """Whether it is two lengths, or nothing."""
    return value is None or (isinstance(value, tuple) and len(value) == 2 and all(map(is_length, value)))


def call(name: str, arguments: Mapping[str, object]) -> str:
    """A part of a model and its arguments, in a line."""
    rest = ", ".join(f"{key}={value}" for key, value in arguments.items() if key != "type" and value is not None)
    return shown(f"{name}({rest})", 1000)
