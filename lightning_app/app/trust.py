"""What a configuration may name: this program's classes, Lightning's harmless ones, and what was typed.

A class or function that a file names is imported, and that runs its module. So while a command is parsed jsonargparse
may import what is listed here and no more; ``--trust`` lifts that for the files of one command.
"""

import importlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lightning.pytorch.cli  # lets jsonargparse read addresses when it is imported, which ends here  # noqa: F401
import yaml
from jsonargparse import _common, set_parsing_settings
from lightning.pytorch import Callback
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy

from lightning_app import callbacks  # noqa: F401
from lightning_app.app import own_modules
from lightning_app.reading.specs import import_paths, known_classes, subclasses
from lightning_app.util.errors import InputError

OPTION: Final = "--trust"
ADVICE: Final = f"add {OPTION} if you have read it"
OF_TRAINER: Final = (Callback, Logger, Profiler, Strategy, Accelerator)
# Left out, since they call what they are given: LambdaCallback, BackboneFinetuning, ModelPruning, ThroughputMonitor,
# PyTorchProfiler.
STOCK: Final = {
    "lightning.pytorch.callbacks": (
        "DeviceStatsMonitor",
        "EarlyStopping",
        "EMAWeightAveraging",
        "GradientAccumulationScheduler",
        "LearningRateMonitor",
        "ModelCheckpoint",
        "ModelSummary",
        "RichModelSummary",
        "RichProgressBar",
        "StochasticWeightAveraging",
        "Timer",
        "TQDMProgressBar",
        "WeightAveraging",
    ),
    "lightning.pytorch.callbacks.progress.rich_progress": ("RichProgressBarTheme",),
    "lightning.pytorch.loggers": ("CSVLogger", "TensorBoardLogger", "WandbLogger"),
    "lightning.pytorch.profilers": ("AdvancedProfiler", "SimpleProfiler"),
}
FOLDERS: Final = ("dirpath", "save_dir", "folder")  # arguments of callbacks, loggers and profilers: where they write
_PATH: Final = re.compile(r"(?<![\w./-])[^\W\d]\w*(\.[^\W\d]\w*)+(?![\w/-])")


def harmless(base: type) -> dict[str, type]:
    """Path -> class of what a file may name where a callback, a logger or the like is expected: those of this program
    and of what ``--import`` named, and the harmless ones of Lightning."""
    found = [base]
    found += (each for each in subclasses(base) if f"{each.__module__}.".startswith("lightning_app."))
    found += (each for each in subclasses(base) if own_modules.is_own(each))
    for module, names in STOCK.items():
        stock = [getattr(importlib.import_module(module), name) for name in names]
        found += [cls for cls in stock if issubclass(cls, base)]
    return {path: cls for cls in found for path in import_paths(cls)}


@contextmanager
def imports(files: Sequence[Path], args: Sequence[str], bases: Iterable[type], *, trust: bool) -> Iterator[None]:
    """While the block runs, jsonargparse imports what may be named, fetches nothing and builds nothing under ``Any``.

    Args:
        bases: of the model's parts and of the data: what is below them and imported may be named.
        files: the configurations that are read.
        args: what was typed besides.
        trust: whether these files may import more.

    Raises:
        InputError: a file names something else, and ``trust`` is off.
    """
    allowed = {path for base in bases for path in (*import_paths(base), *known_classes(base))}
    allowed |= {path for base in OF_TRAINER for path in harmless(base)}
    allowed |= {path for arg in args for path in _typed(arg)}
    before = dict(_common.parsing_settings)
    try:
        set_parsing_settings(
            config_read_mode_urls_enabled=False,
            config_read_mode_fsspec_enabled=False,
            instantiate_subclass_spec_in_any=False,
            import_path_denylist=[] if trust else ["*"],
            import_path_allowlist=[] if trust else sorted(path for path in allowed if "<" not in path),  # a local class
        )
        if not trust:
            for file in files:
                _check(file, allowed)
        yield
    finally:
        _common.parsing_settings.update(before)


def leads_out(text: str) -> bool:
    """Whether a name can mean a place outside the folder that it is put into, or another machine."""
    return ".." in text or "://" in text or re.match(r"[/\\~]|[A-Za-z]:", text) is not None


def check_places(trainer: Any, run: Path, args: Sequence[str]) -> None:
    """Raise an InputError where a trainer's configuration writes outside of ``run`` and nobody typed that.

    Args:
        trainer: as it was read from all files, at any depth.
        args: what was typed.
    """
    words = [arg for option, arg in zip(["", *args], args, strict=False) if option != "-c"]

    def check(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, each in value.items():
                check(str(key), each)
        elif isinstance(value, list | tuple):
            for each in value:
                check(name, each)
        elif isinstance(value, str | Path):
            text = str(value)
            inside = Path(text).is_relative_to(run) and ".." not in text
            if (name in FOLDERS or leads_out(text)) and not inside and not any(text in word for word in words):
                raise InputError(f"A configuration lets trainer.{name} write to {text}: {ADVICE}, or type it")

    for name, value in trainer.items():
        if name != "default_root_dir":  # the run's folder
            check(name, value)


def _typed(word: str) -> Iterator[str]:
    """What a word of the command line lets be imported: the classes in it, by path or by name, and their module."""
    if word.startswith("-c"):
        return
    for base in OF_TRAINER:  # by name; those of models and data may be named anyway
        for cls in subclasses(base):
            if re.search(rf"(?<![\w.]){cls.__name__}(?!\w)", word):
                yield from import_paths(cls)
    for match in _PATH.finditer(word):
        path, (module, _, name) = match[0], match[0].rpartition(".")
        if module.partition(".")[0] in sys.stdlib_module_names:
            continue
        yield path
        there = getattr(sys.modules.get(module), name, None)
        if isinstance(there, type):
            yield from import_paths(there)
        elif module not in sys.modules:
            yield module  # the class may be defined beside the name


def _check(file: Path, allowed: set[str]) -> None:
    content = yaml.safe_load(file.read_text())
    named = dict.fromkeys(path for path in _named(content) if path not in allowed)
    if named:
        raise InputError(f"{file} would import {', '.join(named)}, which is not part of this program: {ADVICE}")
    if address := next((text for text in _texts(content) if "://" in text), None):
        raise InputError(f"{file} names an address, {address}: {ADVICE}")


def _named(tree: Any) -> Iterator[str]:
    """What stands after ``class_path`` with dots in it, at any depth, in JSON too, and names of Python's library."""
    if isinstance(tree, dict):
        path = tree.get("class_path")
        if isinstance(path, str) and "." in path:
            yield path
        for each in tree.values():
            yield from _named(each)
    elif isinstance(tree, list):
        for each in tree:
            yield from _named(each)
    elif isinstance(tree, str) and tree.lstrip()[:1] in ("{", "["):
        try:
            yield from _named(json.loads(tree))
        except (ValueError, RecursionError):
            return
    elif isinstance(tree, str) and _PATH.fullmatch(tree) and tree.partition(".")[0] in sys.stdlib_module_names:
        yield tree


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from _texts(each)
