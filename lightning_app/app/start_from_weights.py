"""fit --model.weights: backbone and heads of the weights, where the command line names none."""

from collections.abc import Sequence
from typing import Any

import yaml

from lightning_app.app.arguments import config_files, value_of
from lightning_app.reading import specs
from lightning_app.weights.load import load


def model_of_weights(args: Sequence[str]) -> dict[str, Any]:
    """The parts of the weights that fit starts from, but those that were given."""
    configs = [yaml.safe_load(file.read_text()).get("model") for file in config_files(args)]
    models = [model for model in configs if isinstance(model, dict)]
    weights, part = (
        value_of(args, f"--model.{name}") or next((m[name] for m in reversed(models) if m.get(name)), None)
        for name in ("weights", "weights_part")
    )
    if not weights:
        return {}
    info = load(weights).known

    def given(part: str) -> bool:
        """Whether which class or which timm model was said, and not only an argument of it."""
        names = (f"--model.{part}", f"--model.{part}.class_path", f"--model.{part}.name")
        return any(value_of(args, name) for name in names) or any(part in model for model in models)

    parts: dict[str, Any] = {}
    if not given("backbone"):
        backbone = info.parts["backbone"]
        arguments = {key: value for key, value in specs.given(backbone).items() if key != "pretrained"}
        parts["backbone"] = {**backbone, "init_args": arguments}  # no other weights are fetched
    if part != "backbone" and not given("head"):
        parts["head"] = info.parts.get("head")
        if not given("auxiliary"):
            parts |= {key: info.parts[key] for key in ("auxiliary", "auxiliary_weight") if key in info.parts}
    return parts
