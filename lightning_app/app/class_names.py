"""Classes by any of their names, and in front of their settings, as LightningCLI reads them."""

import re
from collections.abc import Sequence
from inspect import isabstract
from itertools import pairwise
from pathlib import Path

import yaml

from lightning_app.app.arguments import CONFIG
from lightning_app.reading import specs
from lightning_app.registry import HEADS, plain
from lightning_app.tasks.base import AnyTask

HAVE_DEFAULT = ("--model.backbone",)  # their settings may always stand alone


def prepared(args: Sequence[str], task: type[AnyTask]) -> list[str]:
    """Any name of a part of the model or of a dataset becomes its class's, and a class comes before its settings."""
    args = list(args)
    for part, base in choices(task).items():  # settings of these are --data.x and so on
        option = "--data" if part == "data" else f"--model.{part}"
        args = _with_classes(args, option, base)
        if option not in HAVE_DEFAULT:
            args = _class_first(args, option)
    return args


def choices(task: type[AnyTask]) -> dict[str, type]:
    """What is chosen by the name of a class -> what that class is below."""
    return {part: each.base for part, each in task.parts.items()} | {"data": task.data}


def registered(base: type) -> dict[str, type]:
    """Slug -> class below ``base``, of those that a registry lists."""
    return {slug: entry.cls for slug, entry in HEADS.items() if issubclass(entry.cls, base)}


def _with_classes(args: list[str], option: str, base: type) -> list[str]:
    """``--model.head ccnet`` as ``--model.head CCNet``; a name that is not known stays for the parser to refuse."""
    choosing = (option, f"{option}.help", f"{option}.class_path")
    named = list(args)
    for place, arg in enumerate(args):
        word, equals, value = arg.partition("=")
        if word not in choosing:
            continue
        if equals:
            named[place] = f"{word}={_class_name(base, value)}"
        elif place + 1 < len(args):
            named[place + 1] = _class_name(base, args[place + 1])
    return named


def _class_name(base: type, name: str) -> str:
    if registered(base):
        return _path_of(HEADS[name].cls) if name in HEADS else name
    return {plain(each): each for each in names_below(base)}.get(plain(name), name)


def _path_of(cls: type) -> str:
    """A class of this program by its name, another with its module: two may have one name."""
    ours = cls.__module__.startswith("lightning_app.")
    return cls.__name__ if ours else f"{cls.__module__}.{cls.__qualname__}"


def names_below(base: type) -> list[str]:
    """The names of all classes that are imported, ``base`` and below, of which something can be made."""
    return sorted({cls.__name__ for cls in (base, *specs.subclasses(base)) if not isabstract(cls)})


def _class_first(args: list[str], option: str) -> list[str]:
    """Settings typed in front of the class that they are for, behind it."""
    chosen = next((place for place, arg in enumerate(args) if arg.partition("=")[0] == option), None)
    if chosen is None or any(_chooses(file, option) for word, file in pairwise(args[:chosen]) if word in CONFIG):
        return args
    before: list[str] = []
    behind, place = args[chosen : chosen + 1 + ("=" not in args[chosen])], 0
    rest = args[chosen + len(behind) :]
    while place < chosen:
        arg = args[place]
        takes_value = "=" not in arg and place + 1 < chosen and not re.match(r"--|-[a-z]", args[place + 1])
        words = args[place : place + 1 + takes_value]
        (behind if arg.startswith(f"{option}.") and not arg.startswith(f"{option}.help") else before).extend(words)
        place += len(words)
    return [*before, *behind, *rest]


def _chooses(file: str, option: str) -> bool:
    """Whether a configuration gives the class, so that settings may follow it."""
    part = yaml.safe_load(Path(file).read_text())
    for key in option.removeprefix("--").split("."):
        part = part.get(key) if isinstance(part, dict) else None
    return part is not None
