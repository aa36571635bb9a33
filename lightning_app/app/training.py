"""fit, validate, test and predict: which configuration a command starts from, and where it ends."""

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_app.app import resume, trust
from lightning_app.app.arguments import prepared, value_of, with_config_paths, with_value
from lightning_app.app.command_line import CommandLine, without_weights
from lightning_app.app.evaluation import evaluate
from lightning_app.app.run_folder import RunFolder
from lightning_app.app.start_from_weights import model_of_weights
from lightning_app.backbones.patchify import Patchify  # noqa: F401
from lightning_app.data import SegmentationDataModule
from lightning_app.registry import HEADS
from lightning_app.runs.endings import why_it_ended
from lightning_app.runs.folders import check_name
from lightning_app.runs.lock import Lock
from lightning_app.tasks.semantic.task import SegmentationTask
from lightning_app.util.errors import InputError

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
    with trust.imports(files, args, trust=trusted), Lock() as lock:
        try:
            return _train(verb, args, lock, trusted)
        except (OSError, RuntimeError) as error:
            if line := why_it_ended(error, lock.folder):
                raise InputError(line) from error
            raise
        except SystemExit as error:  # Lightning's, where Ctrl-C came before the first step or after the last one
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise


def _train(verb: str, args: list[str], lock: Lock, trusted: bool) -> int:
    HEADS.import_all()  # the parser knows by short name what is imported, as Patchify and the datamodules above are
    args = prepared(args)
    _quieten()
    torch.set_float32_matmul_precision("high")
    if weights := value_of(args, "--weights"):
        return evaluate(verb, weights, args, trusted=trusted)
    checkpoint = resume.find(verb, value_of(args, "--ckpt_path"), value_of(args, "--run"), trust=trusted)
    if checkpoint is not None:
        args = with_value(args, "--ckpt_path", str(checkpoint.path))
        below = checkpoint.config
    elif verb == "fit":
        below = {"model": parts} if (parts := model_of_weights(args)) else {}
    elif any(arg in ASKING or arg.endswith(".help") for arg in args):
        below = {}
    else:
        raise without_weights(verb)
    run = RunFolder(lock, checkpoint.run if checkpoint else None, typed=None if trusted else args)
    return _run(verb, args, below, checkpoint, run)


def _run(
    verb: str, args: list[str], below: dict[str, Any], checkpoint: resume.Checkpoint | None, run: RunFolder
) -> int:
    """Run the subcommand with a configuration ``below`` those that were typed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "below.yaml"
        file.write_text(yaml.safe_dump(below))
        try:
            return CommandLine(
                [verb, *(["-c", str(file)] if below else []), *args],
                task=SegmentationTask,
                data=SegmentationDataModule,
                run=run,
                checkpoint=checkpoint,
            ).status
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
