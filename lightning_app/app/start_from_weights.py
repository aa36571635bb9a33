"""fit --model.weights: the parts of the weights' model, where the command line names none."""

from collections.abc import Sequence
from typing import Any

import yaml

from lightning_app.app.arguments import config_files, value_of
from lightning_app.reading import specs
from lightning_app.tasks.base import AnyTask


def of_command(args: Sequence[str]) -> tuple[str | None, str | None]:
    """The weights that fit starts from, and which part of them."""
    weights, part = (
        value_of(args, f"--model.{name}") or next((m[name] for m in reversed(_models(args)) if m.get(name)), None)
        for name in ("weights", "weights_part")
    )
    return weights, part


def parts_of(weights: Any, part: str | None, args: Sequence[str], task: type[AnyTask]) -> dict[str, Any]:
    """The parts of the weights' model that fit starts with, but those that were given.

    Args:
        weights: what describes that model, part by part; of another task the backbone alone counts.
        part: of the weights that is loaded; none is all.
    """
    models = _models(args)

    def given(name: str) -> bool:
        """Whether which class or which timm model was said, and not only an argument of it."""
        names = (f"--model.{name}", f"--model.{name}.class_path", f"--model.{name}.name")
        return any(value_of(args, each) for each in names) or any(name in model for model in models)

    left = {name for name in task.parts if given(name) or (part == "backbone" and name != "backbone")}
    parts = task.parts_of(weights, left)
    if part == "backbone":
        parts = {name: spec for name, spec in parts.items() if name == part}
    return {name: _without_first_weights(spec) if name in task.parts else spec for name, spec in parts.items()}


def _models(args: Sequence[str]) -> list[dict[str, Any]]:
    """What the configurations say of the model."""
    models = [yaml.safe_load(file.read_text()).get("model") for file in config_files(args)]
    return [model for model in models if isinstance(model, dict)]


def _without_first_weights(spec: Any) -> Any:
    """A part that fetches no other weights."""
    if not isinstance(spec, dict):
        return spec
    return {**spec, "init_args": {key: value for key, value in specs.given(spec).items() if key not in specs.STARTING}}
