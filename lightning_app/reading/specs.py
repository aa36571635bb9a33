"""What a file says of a model is data: classes of this program with plain arguments, checked before anything is built.

A spec is ``{class_path, init_args}``. No name in it is imported and no text in it is read a second time: the class must
be there already, and every argument must be known and have a value of its type.
"""

import inspect
import math
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from lightning_app._moved import old_names
from lightning_app.util.errors import InputError

T = TypeVar("T")

STARTING: Final = ("pretrained",)  # arguments that fetch the first weights: a model that gets its own needs none
MOST: Final = 10_000  # values in one spec
DEEPEST: Final = 20
LONGEST: Final = 4096  # characters


@dataclass(frozen=True)
class Part:
    """An argument of a model that is a class with arguments of its own.

    Args:
        base: what the class is below.
        given: its first arguments, which the model gives and no file.
    """

    base: type
    given: tuple[str, ...] = ()


def subclasses(base: type) -> Iterator[type]:
    """All classes below ``base`` that are imported."""
    children: list[type] = base.__subclasses__()
    for child in children:
        yield child
        yield from subclasses(child)


def import_paths(cls: type) -> set[str]:
    """Every dotted path under which a class stands in its package."""
    parts = cls.__module__.split(".")
    modules = [".".join(parts[: count + 1]) for count in range(len(parts))]
    there = {f"{each}.{cls.__name__}" for each in modules if getattr(sys.modules.get(each), cls.__name__, None) is cls}
    there |= {f"{module}.{cls.__name__}" for module in old_names(cls.__module__)}
    return there | {f"{cls.__module__}.{cls.__qualname__}"}


def known_classes(base: type) -> dict[str, type]:
    """Path -> class, of all below ``base`` that are imported, and of itself where something can be made of it."""
    own = [] if inspect.isabstract(base) else [base]
    return {path: cls for cls in (*own, *subclasses(base)) for path in import_paths(cls)}


def class_of(spec: Any, known: Mapping[str, type], what: str) -> type:
    """The class that a spec names.

    Raises:
        InputError: it names none of the known ones, or is no spec.
    """
    if not isinstance(spec, Mapping) or not isinstance(path := spec.get("class_path"), str):
        raise InputError(f"{what} is {shown(spec)}: no class and its arguments")
    if spec.keys() - {"class_path", "init_args"}:
        raise InputError(f"{what} holds more than a class and its arguments: {shown(sorted(map(str, spec)))}")
    if path not in known:
        module = shown(path).rpartition(".")[0]
        known_by = f": if it is yours, import its module first (--import {module})" if module else ""
        raise InputError(f"{what} is {shown(path)}, which is no class of this program{known_by}")
    return known[path]


def arguments(
    spec: Mapping[str, Any], cls: type, what: str, *, given: Sequence[str] = (), largest: int = 2**63
) -> dict[str, Any]:
    """The arguments in a spec of ``cls``, each of its type; those that fetch the first weights are left out.

    Args:
        given: arguments that do not come from a file.
        largest: number that an argument can be.

    Raises:
        InputError: an argument that is unknown, or a value that it cannot have.
    """
    values = spec.get("init_args")
    check_plain(values, what)
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InputError(f"{what} has the arguments {shown(values)}: write names and values")
    for name, value in values.items():
        if type(value) is int and abs(value) > largest:
            raise InputError(f"{what} cannot have {shown(name)} = {value}")
    return fit(values, {name: kind for name, kind in parameters(cls).items() if name not in given}, what)


def maker(spec: Any, name: str, part: Part, what: str) -> Callable[..., Any] | None:
    """What builds one part, called with the arguments that no file gives; null is none.

    Raises:
        InputError: a class that is not below the part's, or an argument that it does not have.
    """
    if spec is None:
        return None
    try:
        cls = class_of(spec, known_classes(part.base), f"the {name}")
        values = arguments(spec, cls, f"the {name}", given=part.given, largest=2**20)
    except InputError as error:
        raise InputError(f"{what} cannot be built: {error}") from None
    return lambda *first: cls(*first, **values)


def spec_of(cls: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a class with these arguments."""
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": dict(arguments)}


def given(spec: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The arguments in a spec, as they stand there; none where there are none."""
    values: Mapping[str, Any] = (spec or {}).get("init_args") or {}
    return values


def fit(values: Mapping[str, Any], kinds: Mapping[str, Any], what: str) -> dict[str, Any]:
    """``values`` as their types want them.

    Raises:
        InputError: an unknown name, or a value of another type.
    """
    fitted = {}
    for name, value in values.items():
        if name not in kinds:
            raise InputError(f"{what} has no {shown(name)}")
        if name in STARTING:
            continue
        try:
            fitted[name] = _fit(value, kinds[name])
        except _Misfit:
            raise InputError(f"{what} cannot have {name} = {shown(value)}") from None
    return fitted


def make(make: Callable[[], T], what: str) -> T:
    """What ``make`` gives.

    Raises:
        InputError: in place of whatever arguments of the right types but senseless values raise.
    """
    try:
        return make()
    except InputError as error:
        raise InputError(f"{what} cannot be built: {error}") from error
    except (Exception, RecursionError) as error:
        raise InputError(f"{what} cannot be built: {type(error).__name__}: {shown(str(error))}") from error


@contextmanager
def at_most(tensors: Iterable[int], what: str) -> Iterator[None]:
    """While the block builds a model, it stops where that is larger than what there are weights for.

    Args:
        tensors: numbers of elements. A network is built whole and then cut, some parts for a moment: that leaves room.
    """
    sizes = list(tensors)
    most, whole = 1000 + 8 * len(sizes), 2**27 + 8 * sum(sizes)
    count, elements = 0, 0

    def check(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count, elements  # of what is made, not yet of what is written: memory that nothing touches is free
        count += 1
        elements += 0 if parameter is None else parameter.numel()
        if count > most or elements > whole:
            raise InputError(f"{what} is larger than its weights")

    hook = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        hook.remove()


def parameters(cls: type) -> dict[str, Any]:
    """Name -> type of each argument of a constructor, and of those that it passes on with ``**options``."""
    kinds: dict[str, Any] = {}
    for each in cls.__mro__:
        if "__init__" not in vars(each):
            continue
        init = vars(each)["__init__"]
        own = list(inspect.signature(init).parameters.values())[1:]
        try:
            hints = get_type_hints(init)
        except NameError:  # of a type that is imported for type checkers alone
            hints = {one.name: one.annotation for one in own if one.annotation is not one.empty}
        named = (one for one in own if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL))
        kinds = {one.name: hints.get(one.name, Any) for one in named} | kinds
        if not any(one.kind is one.VAR_KEYWORD for one in own):
            break
    return kinds


def check_plain(value: Any, what: str, *, classes: bool = False) -> None:
    """Raise an InputError unless ``value`` is plain data, of a spec's size, that names no address and no class.

    Args:
        classes: it may name classes, which are looked at one by one.
    """
    left = MOST

    def check(value: Any, depth: int) -> None:
        nonlocal left
        left -= 1
        if left < 0 or depth > DEEPEST:
            raise InputError(f"{what} holds more than {MOST} values, or {DEEPEST} in one another")
        if type(value) is float and not math.isfinite(value):
            raise InputError(f"{what} holds {value}")
        if type(value) is int and abs(value) >= 2**63:
            raise InputError(f"{what} holds a number of {value.bit_length()} bits")
        if type(value) is str:
            if len(value) > LONGEST or not (value.isprintable() or value.isspace()):
                raise InputError(f"{what} holds {shown(value)}, which is no plain text")
            if "://" in value:
                raise InputError(f"{what} holds an address, {shown(value)}")
        elif isinstance(value, Mapping):
            if ("class_path" in value and not classes) or not all(isinstance(key, str) for key in value):
                raise InputError(f"{what} holds {shown(value)}: another class")
            for each in value.values():
                check(each, depth + 1)
        elif type(value) in (list, tuple):
            for each in value:
                check(each, depth + 1)
        elif type(value) not in (int, float, bool, types.NoneType):
            raise InputError(f"{what} holds a {type(value).__name__}")

    check(value, 0)


def shown(value: Any) -> str:
    """A value from a file in one short line."""
    text = "".join(each if each.isprintable() else "?" for each in " ".join(str(value)[:400].split()))
    return text if len(text) <= 120 else f"{text[:117]}..."


class _Misfit(Exception):
    pass


def _fit(value: Any, kind: Any) -> Any:
    """``value``, plain, as ``kind`` wants it; never by reading its text."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        if type(value) is str:
            return _when(value.lstrip()[:1] not in ("{", "["), value)  # text that is to be read as more
        if isinstance(value, Mapping):
            return {name: _fit(each, Any) for name, each in value.items()}
        return [_fit(each, Any) for each in value] if type(value) in (list, tuple) else value
    if origin in (Union, types.UnionType):
        return _first(value, args)
    if kind in (None, types.NoneType):
        return _when(value is None, value)
    if origin is Literal:
        return _when(any(type(each) is type(value) and each == value for each in args), value)
    if kind in (bool, int, str):
        return _when(type(value) is kind, value)
    if kind is float:
        return float(_when(type(value) in (int, float), value))
    if kind is Path:
        return Path(_when(type(value) is str, value))
    if kind is timedelta:
        return _when(type(value) is str and re.fullmatch(r"(\d+ days?, )?\d+:\d\d:\d\d(\.\d+)?", value), value)
    if origin in (list, Sequence, Iterable) or kind is list:
        return [_fit(each, *args or (Any,)) for each in _when(type(value) in (list, tuple), value)]
    if origin is tuple:
        _when(type(value) in (list, tuple), value)
        kinds = args[:1] * len(value) if args[1:] == (...,) else args
        _when(len(kinds) == len(value), value)
        return tuple(_fit(each, one) for each, one in zip(value, kinds, strict=True))
    if origin in (dict, Mapping) or kind is dict:
        key, item = args or (str, Any)
        if key is int:  # YAML's keys may be numbers, a header's cannot
            raise _Misfit
        return {name: _fit(each, item) for name, each in _when(isinstance(value, Mapping), value).items()}
    if is_typeddict(kind):
        hints = get_type_hints(kind)
        _when(isinstance(value, Mapping) and value.keys() <= hints.keys(), value)
        return {name: _fit(each, hints[name]) for name, each in value.items()}
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        _when(isinstance(value, Mapping) and value.keys() <= {one.name for one in fields(kind)}, value)
        return {name: _fit(each, hints[name]) for name, each in value.items()}
    raise _Misfit  # a module, a function: nothing that a file can hold


def _first(value: Any, kinds: Sequence[Any]) -> Any:
    for kind in kinds:
        try:
            return _fit(value, kind)
        except _Misfit:
            continue
    raise _Misfit


def _when(holds: object, value: Any) -> Any:
    if not holds:
        raise _Misfit
    return value
