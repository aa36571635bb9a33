"""Checkpoints of ``contextzoo fit`` as weights: a description and the model's tensors."""

from collections.abc import Mapping
from math import isnan, nan
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from lightning_app.reading import checkpoints, specs
from lightning_app.registry import TASKS
from lightning_app.util.errors import InputError, input_error
from lightning_app.weights.description import Description
from lightning_app.weights.facts import facts_of

NETWORK: Final = ("network", "segmentor")  # what a task calls it, and what tasks called it before
PLACES: Final = ("root", "predict_folder")  # arguments of a datamodule that hold for one machine


def read_config(path: Path) -> dict[str, Any]:
    """The whole configuration of the run that wrote a checkpoint.

    Raises:
        InputError: not a checkpoint of ``contextzoo fit``.
    """
    config: dict[str, Any] = checkpoints.read(path)["config"]
    return config


def read_checkpoint(path: Path, *, raw: bool = False) -> tuple[Description, dict[str, Tensor]]:
    """What a checkpoint of ``contextzoo fit`` says of its model, and the model's tensors.

    Args:
        raw: the weights as trained, where the run also averaged them (EMA); the default is the average.

    Raises:
        InputError: not such a checkpoint, or it holds no average although ``raw`` asks to tell them apart.
    """
    content = checkpoints.read(path)
    if raw and "current_model_state" not in content:
        raise InputError(f"{path} holds one set of weights only: the run averaged none")
    description = describe(content, path, raw=raw)
    tensors = content["current_model_state" if raw else "state_dict"]
    found = {name.partition(".")[2]: each for name, each in tensors.items() if name.partition(".")[0] in NETWORK}
    return description, found


def describe(content: Mapping[str, Any], path: Path, *, raw: bool = False) -> Description:
    """What a checkpoint's content says of its model; ``path`` is what a person knows it by.

    Raises:
        InputError: it does not say how to rebuild it.
    """
    try:
        return Description.from_dict(_of_run(content, path, raw=raw), path)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise input_error(error) or InputError(f"{path} does not say how to rebuild its model: {error!r}") from error


def start_of(model: Mapping[str, Any]) -> str:
    """What a training began from, and what of that it left alone, by its configuration's ``model``."""
    backbone = specs.given(model["backbone"])
    if model.get("weights"):
        part = "all layers" if model.get("weights_part", "all") == "all" else model["weights_part"]
        weights = str(model["weights"])
        start = f"{weights if '://' in weights else Path(weights).name}, {part}"
    elif first := backbone.get("pretrained"):
        start = Path(first).name if isinstance(first, str) else f"pretrained weights of {backbone['name']}"
    else:
        start = "random weights"
    frozen = model.get("freeze") or []
    return f"{start}; frozen: {frozen if isinstance(frozen, str) else ', '.join(frozen)}" if frozen else start


def _of_run(content: Mapping[str, Any], path: Path, *, raw: bool) -> dict[str, Any]:
    """What its run knew of the model."""
    config = content["config"]
    specs.check_plain(config, f"{path}: its configuration", classes=True)
    task = TASKS.of_file(config, path)
    facts = facts_of(task)
    data = config.get("data") or {}
    arguments = {key: value for key, value in specs.given(data).items() if key not in PLACES}
    description = {
        "name": f"{path.parent.parent.name}/{path.stem}" if path.parent.name == "checkpoints" else path.stem,
        "task": task,
        "model": {key: value for key, value in config["model"].items() if key in facts.parts},
        "data": {"class_path": data.get("class_path", ""), "init_args": arguments},
        "training": {"iterations": content["global_step"], **_recipe(config)},
        "provenance": {"begun from": start_of(config["model"])},
        **facts.of_run(content),
    }
    best = facts.best_validation(content)
    if best and best.epoch == content["epoch"] + 1 and not raw:
        found = {name: best.report.figures.get(name, nan) for name in facts.figures}
        figures = {name: 100 * value for name, value in found.items() if not isnan(value)}  # nan: nothing to find
        source = f"validation after epoch {best.epoch} of its own run"
        description["metrics"] = {"figures": figures, "source": source, "stage": "val"}
    return description


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """How a run trained, as the zoo's index counts it."""
    model, data, trainer = config["model"], specs.given(config.get("data")), config["trainer"]
    devices = trainer["devices"] if isinstance(trainer["devices"], int) else 1
    batch = data.get("batch_size", 1) * max(devices, 1) * trainer["num_nodes"] * trainer["accumulate_grad_batches"]
    crop = data.get("crop_size") or data.get("image_size")
    crop = crop if isinstance(crop, list | tuple) and len(crop) == 2 else None
    return {"batch": batch, "crop": crop, "optimizer": model["optimizer"], "lr": model["lr"]}
