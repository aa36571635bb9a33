"""What the zoo's index says of weights that are published: their figures, and how they were trained."""

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

from torch import nn

from lightning_app import data
from lightning_app.reading import specs
from lightning_app.registry import TASKS
from lightning_app.util.checkout import commit
from lightning_app.util.errors import InputError
from lightning_app.weights.card import OPTIMIZERS
from lightning_app.weights.costs import costs_of
from lightning_app.weights.description import Description, Metrics


def measured(checkpoint: Path, description: Description, *, raw: bool) -> Metrics:
    """The figures to publish: those measured with this checkpoint, else what its run saw.

    Raises:
        InputError: none are known.
    """
    for stage, command in (("test", "test"), ("val", "validate")):
        path = checkpoint.parent.parent / f"{command}.json"
        if raw or not path.is_file():
            continue
        content = json.loads(path.read_text())
        if content["checkpoint"] and Path(content["checkpoint"]).resolve() == checkpoint.resolve():
            when = date.fromtimestamp(path.stat().st_mtime)
            source = f"contextzoo {command} --ckpt_path {checkpoint.name}, {when}{_of_commit()}"
            known = [name for name in description.facts.figures if content.get(name) is not None]
            return Metrics({name: 100 * content[name] for name in known}, source, stage, content["split"])
    if description.metrics is None:
        raise InputError(
            f"No figure is known of {checkpoint}: measure it with contextzoo test --ckpt_path, or give "
            f"--figure {description.facts.figures[0]}=PERCENT and --source"
        )
    return replace(description.metrics, source=f"{description.metrics.source}{_of_commit()}")


def _of_commit() -> str:
    """The commit that this runs from, as the end of a source."""
    name = commit()
    return f", commit {name}" if name else ""


def values_of(
    description: Description, network: nn.Module, weights: Path, *, crop: Sequence[int] | None
) -> dict[str, Any]:
    """The index entry's fields that the weights, their network and their description tell.

    Raises:
        InputError: something is to be given that is not.
    """
    training, metrics = description.training, description.metrics
    assert training
    assert metrics
    details = description.facts.details(crop or training.crop, asdict(description.data), description.model)
    return {
        "backbone": {"name": description.backbone},
        "split": _split(description),
        **details,
        "metrics": {name: round(value, 2) for name, value in metrics.figures.items()},
        "metrics_source": metrics.source,
        "iterations": training.iterations,
        "batch": training.batch,
        "optimizer": OPTIMIZERS[training.optimizer],
        "lr": training.lr,
        **costs_of(network, type(description.facts), details),
        "size": weights.stat().st_size,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "format": "safetensors",
        "code_licence": description.licences["code"],
        "weights_licence": description.licences["weights"],
    }


def _split(description: Description) -> str:
    """The split that the figures are of: as recorded, else the run's own choice, else the dataset's usual one."""
    metrics, spec, what = description.metrics, asdict(description.data), f"{description.name}: its data"
    if metrics and metrics.split:
        return metrics.split
    cls = specs.class_of(spec, specs.known_classes(TASKS[description.task].data), what)
    arguments = specs.arguments(spec, cls, what)
    stage = metrics.stage if metrics else "val"
    if chosen := arguments.get(f"{stage}_split") or _usual(cls, f"{stage}_split"):
        return str(chosen)
    if cls is data.Folder:
        arguments["classes"] = list(description.facts.labels)  # which it would else read
    datamodule: Any = specs.make(lambda: cls(**arguments), what)
    return str(datamodule.splits[stage])


def _usual(cls: type, argument: str) -> str | None:
    """A text that an argument of a constructor is where nobody gives it."""
    for each in cls.__mro__:
        parameters = inspect.signature(vars(each)["__init__"]).parameters if "__init__" in vars(each) else {}
        if argument in parameters:
            usual = parameters[argument].default
            return usual if isinstance(usual, str) else None
    return None
