"""fit, validate, test and predict: which configuration a command starts from, and where it ends."""

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_app.app import evaluation, resume, start_from_weights, trust, which_task
from lightning_app.app.arguments import value_of, with_config_paths, with_value
from lightning_app.app.class_names import choices, prepared
from lightning_app.app.command_line import CommandLine, without_weights
from lightning_app.app.run_folder import RunFolder
from lightning_app.registry import DEFAULT_TASK, TASKS, import_parts
from lightning_app.runs.endings import why_it_ended
from lightning_app.runs.folders import check_name
from lightning_app.runs.lock import Lock
from lightning_app.tasks.base import AnyTask
from lightning_app.util.errors import InputError
from lightning_app.weights.load import load

ASKING = ("-c", "--config", "--help", "--print_config")  # a configuration may name weights, and help needs none
SAID = (  # by Lightning and torch of what is meant so
    "LightningCLI's args parameter",
    ".*LeafSpec",
    ".*find the monitored key",
    ".*does not have many workers",
    ".*in eval mode at the start of training",
    "Attribute 'backbone' is an instance of",
    ".*exists and is not empty",
    "The dirpath has changed",
    "The number of training batches",  # the task then logs once an epoch
    ".*callbacks used to create the checkpoint need",
)


def train(verb: str, args: list[str]) -> int:
    """Run one of LightningCLI's subcommands as typed."""
    trusted = trust.OPTION in args
    args, files = with_config_paths([arg for arg in args if arg != trust.OPTION])
    if (run := value_of(args, "--run")) is not None:
        check_name(run)
    if (said := which_task.said(args, files)) is not None:
        args = with_value(args, which_task.OPTION, said)
    with Lock() as lock:
        try:
            return _train(verb, args, files, said, lock, trusted)
        except (OSError, RuntimeError) as error:
            if line := why_it_ended(error, lock.folder):
                raise InputError(line) from error
            raise
        except SystemExit as error:  # Lightning's, where Ctrl-C came before the first step or after the last one
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise


def _train(verb: str, args: list[str], files: list[Path], said: str | None, lock: Lock, trusted: bool) -> int:
    import_parts()
    _quieten()
    torch.set_float32_matmul_precision("high")
    typed = None if trusted else args
    if weights := value_of(args, "--weights"):
        evaluation.check(verb, args)
        network = load(weights)
        task = TASKS[which_task.settle(said, weights, network.known.task)]
        with trust.imports(files, args, choices(task).values(), trust=trusted):
            return evaluation.evaluate(verb, network, prepared(args, task), task, RunFolder(lock, typed=typed))
    checkpoint = resume.find(verb, value_of(args, "--ckpt_path"), value_of(args, "--run"), trust=trusted)
    if checkpoint is not None:
        task = TASKS[which_task.settle(said, str(checkpoint.path), checkpoint.task.slug)]
        args = with_value(args, "--ckpt_path", str(checkpoint.path))
        below = checkpoint.config
    elif verb == "fit":
        task, below = _start(args, said)
    elif any(arg in ASKING or arg.endswith(".help") for arg in args):
        task, below = TASKS[said or DEFAULT_TASK], {}
    else:
        raise without_weights(verb)
    with trust.imports(files, args, choices(task).values(), trust=trusted):
        run = RunFolder(lock, checkpoint.run if checkpoint else None, typed=typed)
        return _run(verb, prepared(args, task), task, below, checkpoint, run)


def _start(args: list[str], said: str | None) -> tuple[type[AnyTask], dict[str, Any]]:
    """The task that a new training is of, and what it takes of the weights that it starts from."""
    weights, part = start_from_weights.of_command(args)
    if not weights:
        return TASKS[said or DEFAULT_TASK], {}
    network = load(weights)
    of_weights = network.known.task
    task = TASKS[said or of_weights]
    part = part if task.slug == of_weights else "backbone"
    parts = start_from_weights.parts_of(network.known.parts, part, args, task)
    return task, {"model": parts} if parts else {}


def _run(
    verb: str,
    args: list[str],
    task: type[AnyTask],
    below: dict[str, Any],
    checkpoint: resume.Checkpoint | None,
    run: RunFolder,
) -> int:
    """Run the subcommand with a configuration ``below`` those that were typed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "below.yaml"
        file.write_text(yaml.safe_dump(below))
        try:
            given = ["-c", str(file)] if below else []
            return CommandLine([verb, *given, *args], task=task, run=run, checkpoint=checkpoint).status
        except InputError as error:
            if checkpoint is None:
                raise
            raise InputError(str(error).replace(str(file), str(checkpoint.path))) from error


def _quieten() -> None:
    """Leave out what Lightning says of itself; warnings that concern the run still show."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in SAID:
        warnings.filterwarnings("ignore", message=text)
