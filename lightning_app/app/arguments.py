"""What was typed, in the words that LightningCLI reads."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from lightning_app.app import configs

CONFIG = ("-c", "--config")


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
    """``args`` with each configuration as ``-c PATH``, those that it includes before it, and all these files, checked.

    The parser reads what a file includes too, but lets a whole section of the file stand for that of the included one.
    """
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
            found = configs.with_included(configs.find(name))
            files += found
            paths += [word for file in found for word in ("-c", str(file))]
    return paths, files


def config_files(args: Sequence[str]) -> list[Path]:
    """The configurations among arguments that ``with_config_paths`` gave."""
    return [Path(file) for option, file in pairwise(args) if option in CONFIG]
