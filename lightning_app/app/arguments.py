"""What was typed, in the words and the order that LightningCLI reads."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import yaml

from lightning_app.app import configs
from lightning_app.backbones.base import Backbone
from lightning_app.data import SegmentationDataModule
from lightning_app.registry import HEADS, plain

CONFIG = ("-c", "--config")
HEAD_OPTIONS = ("--model.head", "--model.auxiliary")
HAVE_DEFAULT = ("--model.backbone",)  # their settings may always stand alone
CLASS_OPTIONS = (*HEAD_OPTIONS, "--model.backbone", "--data")  # their settings are --data.x and so on


def prepared(args: Sequence[str]) -> list[str]:
    """Any name of a head or dataset becomes its class's, and a class comes before its settings."""
    args = list(args)
    for option in CLASS_OPTIONS:
        args = _with_classes(args, option)
        if option not in HAVE_DEFAULT:
            args = _class_first(args, option)
    return args


def _with_classes(args: list[str], option: str) -> list[str]:
    """``--model.head ccnet`` as ``--model.head CCNet``; a name that is not known stays for the parser to refuse."""
    choosing = (option, f"{option}.help", f"{option}.class_path")
    named = list(args)
    for place, arg in enumerate(args):
        word, equals, value = arg.partition("=")
        if word not in choosing:
            continue
        if equals:
            named[place] = f"{word}={_class_name(option, value)}"
        elif place + 1 < len(args):
            named[place + 1] = _class_name(option, args[place + 1])
    return named


def _class_name(option: str, name: str) -> str:
    if option in HEAD_OPTIONS:
        return _path_of(HEADS[name].cls) if name in HEADS else name
    base = SegmentationDataModule if option == "--data" else Backbone
    return {plain(each): each for each in _subclasses(base)}.get(plain(name), name)


def _path_of(cls: type) -> str:
    """A class of this program by its name, another with its module: two may have one name."""
    ours = cls.__module__.startswith("lightning_app.")
    return cls.__name__ if ours else f"{cls.__module__}.{cls.__qualname__}"


def _subclasses(base: type) -> Iterable[str]:
    children: list[type] = base.__subclasses__()
    for child in children:
        yield child.__name__
        yield from _subclasses(child)


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


def value_of(args: Sequence[str], option: str) -> str | None:
    """The value given to ``option``, as ``--option X`` or ``--option=X``; the last one where it is repeated."""
    value = None
    for position, arg in enumerate(args):
        if arg == option and position + 1 < len(args):
            value = args[position + 1]
        elif arg.startswith(f"{option}="):
            value = arg.partition("=")[2]
    return value


def with_value(args: Sequence[str], option: str, value: str) -> list[str]:
    """``args`` with every value of ``option`` replaced."""
    replaced = [f"{option}={value}" if arg.startswith(f"{option}=") else arg for arg in args]
    for position, arg in enumerate(args[:-1]):
        if arg == option:
            replaced[position + 1] = value
    return replaced


def with_config_paths(args: Sequence[str]) -> tuple[list[str], list[Path]]:
    """``args`` with each configuration as ``-c PATH``, and the checked files that these are."""
    paths: list[str] = []
    files: list[Path] = []
    words = iter(args)
    for arg in words:
        match = re.fullmatch(r"(?:--config|-c)(?:=(.*))?|-c([^=].*)", arg, re.DOTALL)
        name = next((each for each in match.groups() if each is not None), None) if match else None
        if match and name is None:
            name = next(words, None)
        if name is None:
            paths.append(arg)
        else:
            files.append(configs.checked(configs.find(name)))
            paths += ["-c", str(files[-1])]
    return paths, files


def config_files(args: Sequence[str]) -> list[Path]:
    """The configurations among arguments that ``with_config_paths`` gave."""
    return [Path(file) for option, file in pairwise(args) if option in CONFIG]
