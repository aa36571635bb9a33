"""What a command takes from the configuration in a checkpoint: a model and data, and to resume a trainer's settings."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from lightning_app.app.trust import FOLDERS, harmless, leads_out
from lightning_app.reading import specs
from lightning_app.tasks.base import AnyTask
from lightning_app.util.errors import InputError

NEVER: Final = ("plugins", "model_registry")  # code, and an address
LABELS: Final = ("entity", "group", "job_type", "mode", "notes", "tags")  # that W&B's logger passes on to wandb.init


def configuration(
    content: Any, path: Path, task: type[AnyTask], *, resume: bool, trust: bool
) -> tuple[dict[str, Any], list[str]]:
    """The configuration to go on from, and the names of what was left in the file.

    Args:
        content: the checkpoint's own configuration.
        task: whose it is.
        resume: with the trainer's settings, callbacks and loggers too, of which the ones that are known are taken.
        trust: import the classes that it names first.

    Raises:
        InputError: it names a class that is not known, or values that nothing can have.
    """
    specs.check_plain(content, f"{path}: its configuration", classes=True)
    if trust:
        _import(content)
    model, data = (content.get("model"), content.get("data")) if isinstance(content, Mapping) else (None, None)
    if not isinstance(model, Mapping):
        raise InputError(f"{path} does not say how to rebuild its model: contextzoo fit did not write it")
    for name, part in task.parts.items():
        spec = model.get(name)
        for each in spec if isinstance(spec, list) else [spec]:
            if each is not None:
                _check(each, specs.known_classes(part.base), f"{path}: its model.{name}", part.given)
    settings = {key: value for key, value in model.items() if key not in task.parts}
    specs.fit(settings, specs.parameters(task), f"{path}: its model")
    config: dict[str, Any] = {"task": task.slug, "model": dict(model)}
    if data is not None:
        config["data"] = data
        _check(data, specs.known_classes(task.data), f"{path}: its data")
    if not resume:
        for name in task.parts:
            if isinstance(spec := model.get(name), Mapping):
                arguments = specs.given(spec)
                none = {each: False for each in specs.STARTING if each in arguments}  # the checkpoint has all weights
                config["model"][name] = {**spec, "init_args": {**arguments, **none}}
        return config, []
    seed = content.get("seed_everything")
    config["seed_everything"] = seed if type(seed) in (int, bool) else True
    trainer = content.get("trainer")
    config["trainer"], left = _trainer(trainer if isinstance(trainer, Mapping) else {}, trust=trust)
    return config, left


def _trainer(content: Mapping[str, Any], *, trust: bool) -> tuple[dict[str, Any], list[str]]:
    kinds = specs.parameters(Trainer)
    taken: dict[str, Any] = {}
    left = []
    for name, value in content.items():
        if name in ("callbacks", "logger") and isinstance(value, list | Mapping):
            base = Callback if name == "callbacks" else Logger
            found = []
            for each in value if isinstance(value, list) else [value]:
                try:
                    if not trust or not isinstance(each, Mapping):
                        each = _own(each, harmless(base))
                    found.append(each)
                except InputError as error:
                    left.append(f"trainer.{error}")
            taken[name] = found
        elif value is None or (name not in NEVER and name in kinds and _fits(name, value, kinds)):
            taken[name] = value
        else:
            left.append(f"trainer.{specs.shown(name)}")
    return taken, left


def _own(spec: Any, known: Mapping[str, type]) -> dict[str, Any]:
    """A callback or logger that writes into the run's folder alone; the error's text is its name."""
    try:
        cls = specs.class_of(spec, known, "it")
        given = dict(specs.given(spec))
        own = specs.parameters(cls)
        labels = {name: value for name, value in given.items() if name in LABELS and name not in own}
        values = {name: value for name, value in given.items() if name in own or not (value is None or name in labels)}
        specs.arguments({**spec, "init_args": values}, cls, "it")
        specs.fit(labels, dict.fromkeys(LABELS, str | list[str] | None), "it")
        specs.check_plain(labels, "it")
        values |= labels
    except (InputError, TypeError, ValueError) as error:
        name = spec.get("class_path") if isinstance(spec, Mapping) else spec
        raise InputError(specs.shown(name).rpartition(".")[2]) from error
    for name, value in values.items():
        if name in FOLDERS:  # whatever the file says of folders, the run's own is meant
            values[name] = "." if name == "save_dir" else None
        elif isinstance(value, str) and leads_out(value):
            raise InputError(f"{cls.__name__}.{name}")
    return {"class_path": spec["class_path"], "init_args": values}


def _fits(name: str, value: Any, kinds: Mapping[str, Any]) -> bool:
    try:
        specs.check_plain(value, name)
        specs.fit({name: value}, kinds, name)
    except InputError:
        return False
    return True


def _check(spec: Any, known: Mapping[str, type], what: str, given: tuple[str, ...] = ()) -> None:
    specs.arguments(spec, specs.class_of(spec, known, what), what, given=given)


def _import(tree: Any) -> None:
    """Import the module of every class that is named."""
    if isinstance(tree, Mapping):
        module = str(tree.get("class_path", "")).rpartition(".")[0]
        if module:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise InputError(f"{specs.shown(tree['class_path'])} cannot be imported: {error}") from error
        for each in tree.values():
            _import(each)
    elif isinstance(tree, list):
        for each in tree:
            _import(each)
