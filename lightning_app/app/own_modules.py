"""Modules of the user's own, which define heads, backbones, datasets or callbacks: imported when they are typed.

``--import my_heads`` holds for every command, and for the processes that it starts. The current folder is searched
last, so that a file in it hides nothing that is installed.
"""

import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lightning_app.util.errors import InputError, suggest

OPTION: Final = "--import"
VARIABLE: Final = "CONTEXTZOO_IMPORT"  # tells the processes that a command starts, separated by commas
CLASS_OPTIONS: Final = ("--model.head", "--model.auxiliary", "--model.backbone", "--data")
_OPTIONS: Final = {f"{option}{end}" for option in CLASS_OPTIONS for end in ("", ".class_path", ".help")}
_NAME: Final = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_PATH: Final = re.compile(rf"{_NAME}\.[^\W\d]\w*")


def names() -> list[str]:
    """The modules that this process was told to import."""
    return os.environ[VARIABLE].split(",") if os.environ.get(VARIABLE) else []


def import_typed(args: Sequence[str]) -> list[str]:
    """Import what ``--import`` names, and the module of a head, backbone or dataset that is typed with its path.

    Returns:
        ``args`` without ``--import MODULE``.

    Raises:
        InputError: a module cannot be imported, or has no class of that name.
    """
    rest: list[str] = []
    modules = names()
    words = iter(args)
    for word in words:
        option, equals, value = word.partition("=")
        if option == OPTION:
            modules.append(value if equals else next(words, ""))
            if not modules[-1]:
                raise InputError(f"{OPTION} which module? Such as {OPTION} my_heads, for my_heads.py in this folder")
        else:
            rest.append(word)
    classes = _typed_classes(rest)
    modules += [path.rpartition(".")[0] for path in classes]
    if modules:
        os.environ[VARIABLE] = ",".join(dict.fromkeys(modules))
        import_named()
    for path in classes:
        module, _, name = path.rpartition(".")
        there = vars(sys.modules[module])
        if name not in there:
            known = [each for each, value in there.items() if isinstance(value, type)]
            raise InputError(f'There is no "{name}" in the module {module}.{suggest(name, known)}')
    return rest


def import_named() -> None:
    """Import the modules that this process was told to import.

    Raises:
        InputError: one cannot be imported.
    """
    here = str(Path.cwd())
    if names() and not {here, ""} & {*sys.path}:
        sys.path.append(here)
    for name in names():
        _import(name)


def is_own(cls: type) -> bool:
    """Whether a class is defined in, or below, a module that this process was told to import."""
    return any(f"{cls.__module__}.".startswith(f"{name}.") for name in names())


def _typed_classes(args: Sequence[str]) -> list[str]:
    """The paths of classes outside this program that options of the model and the data are given."""
    paths = []
    for before, word in zip(["", *args], args, strict=False):
        option, equals, value = word.partition("=")
        option, value = (option, value) if equals else (before, word)
        outside = value.partition(".")[0] not in {"lightning_app", *sys.stdlib_module_names}
        if option in _OPTIONS and outside and _PATH.fullmatch(value):
            paths.append(value)
    return paths


def _import(name: str) -> None:
    if not re.fullmatch(_NAME, name) or name.endswith(".py"):
        stem = name.removesuffix(".py").removeprefix("./").replace("/", ".")
        hint = f' Did you mean "{stem}"?' if name.endswith(".py") else ""
        raise InputError(f'{OPTION} takes the name of a module, such as my_heads, not "{name}".{hint}')
    file = f"{name.replace('.', '/')}.py"
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise InputError(
                f'There is no module "{name}": {file} is not in {Path.cwd()}, and none of that name is installed'
            ) from error
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{name} cannot be imported: {what}{_place(error)}") from error
    found = getattr(module, "__file__", None)
    if Path(file).is_file() and found and not Path(found).samefile(file):
        raise InputError(f"{file} is hidden by another module {name}, {found}: rename yours")


def _place(error: BaseException) -> str:
    """Where in the files below the current folder an error arose."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        return ""  # its text says it
    mine = [(file, line) for file, line in frames if Path(file).is_relative_to(Path.cwd())]
    return f" ({Path(mine[-1][0]).relative_to(Path.cwd())}, line {mine[-1][1]})" if mine else ""
