"""The checkpoint that a command goes on from, and what the command line changes of it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_app.app import saved
from lightning_app.callbacks.save_config import PLACES
from lightning_app.reading import checkpoints
from lightning_app.registry import TASKS
from lightning_app.runs import RUNS
from lightning_app.runs.folders import WORDS, good_ones, newest, run_of, weights_of
from lightning_app.tasks.base import AnyTask
from lightning_app.util.errors import InputError


@dataclass(frozen=True)
class Checkpoint:
    """What a command takes from a checkpoint.

    Args:
        path: the file.
        step: optimiser steps that were done.
        task: whose it is.
        facts: what it knows of the data that it was trained on.
        config: of the run that wrote it: below everything on this command line, above the defaults.
    """

    path: Path
    step: int
    task: type[AnyTask]
    facts: Mapping[str, Any]
    config: dict[str, Any]

    @property
    def run(self) -> Path | None:
        """The folder of the run that wrote it."""
        return run_of(self.path)

    def line(self, verb: str, now: Mapping[str, Any]) -> str:
        """What is loaded, and which of its settings ``now`` overrides."""
        parts = [part for part in ("model", "data", "trainer") if part in self.config]
        before, after = (
            _flat({part: config[part] for part in parts}, hidden=self.task.from_data) for config in (self.config, now)
        )
        changes = [f"{key} {old} -> {after[key]}" for key, old in before.items() if key in after and after[key] != old]
        changes += [f"{key} -> {new}" for key, new in after.items() if key not in before and new is not None]
        override = f" You override: {', '.join(changes)}." if changes else ""
        loading = "Resuming" if verb == "fit" else "Loading"
        return f"{loading} {self.run or self.path} at step {self.step}.{override}"


def find(verb: str, name: str | None, run: str | None, *, trust: bool) -> Checkpoint | None:
    """The checkpoint that ``--ckpt_path`` means: a file, or the last or best one of a run (the newest by default)."""
    if name is None or name == "null":
        return None
    path = Path(name)
    if name in WORDS:
        found = newest(name, run)
        if found is None:
            raise InputError(
                f"--ckpt_path {name}: no {RUNS}/{run or '*'}/checkpoints/{name}.ckpt; give the file itself"
            )
        path = found
    elif not path.is_file():
        path = weights_of(name) or path
    if not path.is_file():
        raise InputError(f"--ckpt_path {name}: no such file; give a .ckpt file, {', '.join(WORDS)}")
    try:
        content = checkpoints.read(path)
    except checkpoints.Damaged as error:
        raise InputError(f"{error}. {good_ones(path, verb)}") from error
    task = TASKS[TASKS.of_file(content["config"], path)]
    config, left = saved.configuration(content["config"], path, task, resume=verb == "fit", trust=trust)
    checkpoints.check_states(content.get("callbacks"), path)
    if left:
        print(f"Not taken from {path}: {', '.join(left)}; give it again where it is wanted", file=sys.stderr)
    _find_places(config.get("data") or {}, path)
    step = content.get("global_step")
    if type(step) is not int:
        raise InputError(f"{path} does not say how to rebuild its model: contextzoo fit did not write it")
    return Checkpoint(path, step, task, task.facts_of(content["hyper_parameters"], path), config)


def _find_places(data: Mapping[str, Any], checkpoint: Path) -> None:
    """Relative paths of an older run count from the folder it was started in, where here is nothing of that name."""
    arguments, run = data.get("init_args") or {}, run_of(checkpoint)
    if run is None:
        return
    for name in PLACES:
        place = arguments.get(name)
        if place and not Path(place).exists() and (there := run.absolute().parents[1] / place).exists():
            arguments[name] = str(there)


def _flat(tree: Mapping[str, Any], prefix: str = "", *, hidden: tuple[str, ...]) -> dict[str, Any]:
    """Nested configuration as dotted keys, without the words that only jsonargparse needs."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping) and key != "loss":
            flat |= _flat(value, name, hidden=hidden)
        elif key == "class_path":
            flat[prefix] = str(value).rpartition(".")[2]
        elif key not in (*hidden, "callbacks", "logger", "default_root_dir"):
            flat[name] = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    return flat
