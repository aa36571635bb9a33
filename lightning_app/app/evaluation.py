"""--weights: validate, test and predict with weights that say themselves what they are."""

import inspect
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_app.app import configs
from lightning_app.app.arguments import value_of
from lightning_app.app.command_line import CommandLine
from lightning_app.app.run_folder import RunFolder
from lightning_app.reading import specs
from lightning_app.tasks.base import AnyTask, Evaluation
from lightning_app.util.errors import InputError


def check(verb: str, args: Sequence[str]) -> None:
    """Raise an InputError where ``--weights`` does not go with what was typed besides."""
    if verb == "fit":
        raise InputError("fit starts from weights with --model.weights; --weights is for test, validate and predict")
    if value_of(args, "--ckpt_path"):
        raise InputError("Give --weights or --ckpt_path, not both")


def evaluate(verb: str, network: Any, args: Sequence[str], task: type[AnyTask], run: RunFolder) -> int:
    """Run a subcommand with a network that brings its weights, and hold their figure against the known one.

    Raises:
        InputError: what was typed besides does not go with them.
    """
    changeable = tuple(f"--model.{name}" for name in task.evaluated)
    for arg in args:
        if arg.startswith("--model") and not arg.startswith(changeable):
            raise InputError(f"--weights brings its own model: leave out {arg.partition('=')[0]}")
    evaluation = task.with_weights(network)
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.yaml"
        start.write_text(yaml.safe_dump(_start(verb, task, evaluation, args)))
        cli = CommandLine(
            [verb, *args],
            task=evaluation.task,
            run=run,
            start=start,
            or_own_test_split=verb == "test" and value_of(args, "--data.test_split") is None,
        )
    report = cli.model.reports.get("test" if verb == "test" else "val")
    if report is not None and cli.trainer.is_global_zero:
        figure = cli.model.figure
        print(f"{figure} {100 * report.figures[figure]:.2f} measured here; {evaluation.known}")
    return cli.status


def _start(verb: str, task: type[AnyTask], evaluation: Evaluation, args: Sequence[str]) -> dict[str, Any]:
    """What the command starts from: what the weights say of their task, and their data where that is known."""
    file = configs.of_task(task.slug)
    config: dict[str, Any] = yaml.safe_load(file.read_text()) if file.is_file() else {}
    config["model"] = dict(evaluation.model)
    path = evaluation.data.get("class_path")
    there = specs.known_classes(task.data)
    cls = there.get(str(path)) or next((each for each in there.values() if each.__name__ == path), None)
    if cls is not None:
        split = {"test_split": evaluation.split} if verb == "test" and evaluation.split else {}
        given = dict(evaluation.data["init_args"])
        alone = verb == "predict" and value_of(args, "--data.predict_folder") and not value_of(args, "--data.root")
        for argument, names in evaluation.names.items() if alone else ():
            takes = argument in inspect.signature(cls).parameters
            if takes and not isinstance(given.get(argument), int):  # a number of them says which version of a dataset
                given[argument] = list(names)
        config["data"] = {"class_path": path, "init_args": given | split}
    return config
