"""What weights say of themselves, checked: their model, classes, colours, protocol and data."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, get_type_hints

from lightning_app.backbones.base import Backbone
from lightning_app.backbones.patchify import Patchify  # noqa: F401
from lightning_app.heads.base import ContextHead
from lightning_app.heads.fcn import FCN
from lightning_app.reading import specs
from lightning_app.registry import HEADS
from lightning_app.tasks.semantic.inference import Protocol
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError

Description = dict[str, Any]  # name, model, classes, palette, protocol, data; published files add metrics and more

PARTS: Final[dict[str, type]] = {"backbone": Backbone, "head": ContextHead, "auxiliary": ContextHead}
HEAD: Final = ("head", "auxiliary")
SETTINGS: Final = {"auxiliary_weight": float, "channels_last": bool}
MODEL: Final = (*PARTS, *SETTINGS)
NEEDED: Final = ("name", "model", "classes", "palette", "protocol", "data")
GIVEN: Final = ("in_channels", "num_classes")  # a head's arguments that the backbone and the classes give
MOST_CLASSES: Final = 10_000
LONGEST_HEADER: Final = 2**20


def read(text: str, path: Path) -> Description:
    """The description in a header.

    Raises:
        InputError: it is none.
    """
    if len(text) > LONGEST_HEADER:
        raise InputError(f"{path} says {len(text)} characters of itself, where {LONGEST_HEADER} are enough")
    try:
        description = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} does not say how to rebuild its model: {specs.shown(str(error))}") from error
    return check(description, path)


def check(description: Any, path: str | Path) -> Description:
    """``description`` where every field that a model is rebuilt from can be used.

    Raises:
        InputError: one cannot.
    """
    if not isinstance(description, dict) or not description.keys() >= set(NEEDED):
        raise InputError(f"{path} does not say how to rebuild its model: contextzoo zoo publish did not write it")
    classes, palette = description["classes"], description["palette"]
    if not _is_text(description["name"]):
        raise InputError(f"{path}: its name is {specs.shown(description['name'])}")
    if not isinstance(classes, list) or not 0 < len(classes) <= MOST_CLASSES or not all(map(_is_text, classes)):
        raise InputError(f"{path}: its classes are {specs.shown(classes)}, not a list of names")
    if not isinstance(palette, list) or len(palette) != len(classes) or not all(map(_is_colour, palette)):
        raise InputError(
            f"{path}: its palette is {specs.shown(palette)}, not a colour for each of {len(classes)} classes"
        )
    for part in ("model", "protocol", "data"):
        if not isinstance(description[part], Mapping):
            raise InputError(f"{path}: its {part} is {specs.shown(description[part])}, not names and values")
    data = description["data"]
    specs.check_plain(data.get("init_args"), f"{path}: its data")
    if data and not (_is_text(data.get("class_path", "-") or "-") and isinstance(data.get("init_args") or {}, Mapping)):
        raise InputError(f"{path}: its data is {specs.shown(data)}, not a class and its arguments")
    protocol(description["protocol"], path)
    metrics = description.get("metrics") or {}
    specs.check_plain(metrics, f"{path}: its metrics")
    figure = metrics.get("miou") if isinstance(metrics, Mapping) else "none"
    if figure is not None and type(figure) not in (int, float):
        raise InputError(f"{path}: its metrics are {specs.shown(metrics)}")
    return description


def protocol(values: Mapping[str, Any], path: str | Path) -> Protocol:
    """How the images are to be looked at.

    Raises:
        InputError: by no way that there is.
    """
    what = f"{path}: its protocol"
    specs.check_plain(values, what)
    fitted = specs.fit(values, get_type_hints(Protocol), what)
    return specs.make(lambda: Protocol(**fitted), what)


def new_segmentor(config: Mapping[str, Any], num_classes: int, name: str) -> Segmentor:
    """A segmentor from its parts, freshly initialised; it fetches nothing and names no more than what is imported.

    Raises:
        InputError: an unknown part or argument.
    """
    len(HEADS)  # imports them, as Patchify above
    what = f"{name}: its model"
    if unknown := config.keys() - set(MODEL):
        raise InputError(f"{what} cannot be built: it has no {specs.shown(sorted(map(str, unknown)))}")
    made = {part: _part(config.get(part), part, what) for part in PARTS}
    settings = specs.fit({key: config[key] for key in SETTINGS if key in config}, SETTINGS, what)
    made["head"] = made["head"] or FCN  # as a task has it where none is named
    backbone = made["backbone"]
    if backbone is None:
        raise InputError(f"{what} cannot be built: it has no backbone")

    def build() -> Segmentor:
        levels: Backbone = backbone()
        heads: Any = {part: make and make(levels.channels, num_classes) for part, make in made.items() if part in HEAD}
        return Segmentor(levels, **heads, **settings)

    return specs.make(build, what)


def _part(spec: Any, part: str, what: str) -> Callable[..., Any] | None:
    """What builds one part."""
    if spec is None:
        return None
    base = PARTS[part]
    try:
        cls = specs.class_of(spec, specs.known_classes(base), f"the {part}")
        arguments = specs.arguments(spec, cls, f"the {part}", given=() if base is Backbone else GIVEN, largest=2**20)
    except InputError as error:
        raise InputError(f"{what} cannot be built: {error}") from None
    return lambda *given: cls(*given, **arguments)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _is_colour(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(type(x) is int and 0 <= x < 256 for x in value)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
