"""The folder that a command writes into: which one, whose, and what of Lightning's goes there."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from lightning_app.app import trust
from lightning_app.reading import checkpoints
from lightning_app.runs import RUNS
from lightning_app.runs.folders import check_name
from lightning_app.runs.lock import Lock
from lightning_app.tasks.base import AnyTask
from lightning_app.util.errors import InputError

VARIABLE: Final = "CONTEXTZOO_RUN"  # tells the other processes of a run, which read the same command line, its folder


class RunFolder:
    """Where a command writes.

    Args:
        lock: what ``take`` locks the folder with.
        resumed: the folder of the run that goes on.
        typed: the command line, without which no file may name a place outside the folder; None trusts them.
    """

    def __init__(self, lock: Lock, resumed: Path | None = None, *, typed: Sequence[str] | None) -> None:
        self.lock, self.resumed, self.typed = lock, resumed, typed

    def choose(self, verb: str, config: Any, task: type[AnyTask]) -> None:
        """Settle the folder of a parsed configuration: its root, and where callbacks and loggers write."""
        folder, trainer = self._folder(verb, config, task), config.trainer
        before = trainer.default_root_dir  # of the run whose configuration this one starts from
        trainer.default_root_dir = str(folder)
        callbacks: list[Any] = []
        for callback in trainer.callbacks or []:
            saves = callback.class_path.endswith("ModelCheckpoint")
            if saves and callback.init_args.dirpath in (None, f"{before}/checkpoints"):
                callback.init_args.dirpath = str(folder / "checkpoints")
            if callback not in callbacks:  # given by a run's configuration, and again by a -c
                callbacks.append(callback)
        trainer.callbacks = callbacks
        loggers = trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if hasattr(logger, "init_args") and logger.init_args.get("save_dir") in (None, ".", before):
                logger.init_args.save_dir = str(folder)
        if self.typed is not None:
            trust.check_places(trainer.as_dict(), folder, self.typed)

    def _folder(self, verb: str, config: Any, task: type[AnyTask]) -> Path:
        if VARIABLE in os.environ and "LOCAL_RANK" in os.environ:
            return Path(os.environ[VARIABLE])
        if config.run is not None:
            check_name(config.run)
            folder: Path = RUNS / config.run
        else:
            folder = self.resumed or RUNS / _name(config, task)
        if verb == "fit" and folder.exists():
            self._take(folder)
        os.environ[VARIABLE] = str(folder)
        return folder

    def take(self, trainer: Trainer) -> None:
        """Make the folder this training's own, and write its checkpoints whole."""
        folder = Path(trainer.default_root_dir)
        self._take(folder)
        strategy, save = trainer.strategy, checkpoints.CheckpointFiles(folder)
        if type(strategy.checkpoint_io) is TorchCheckpointIO:
            strategy.checkpoint_io = save
        elif type(strategy.checkpoint_io) is AsyncCheckpointIO:
            strategy.checkpoint_io = AsyncCheckpointIO(save)

    def _take(self, folder: Path) -> None:
        """Lock ``folder``, on the process that writes there."""
        if getattr(rank_zero_only, "rank", 0) != 0:
            return
        self.lock.take(folder)
        if (folder / "checkpoints").exists() and folder != self.resumed:
            raise InputError(
                f"{folder} holds a run already: resume it with --run {folder.name} --ckpt_path last, "
                "or choose another --run"
            )


def _name(config: Any, task: type[AnyTask]) -> str:
    """The name of a run that was given none: its data, its model or weights, and when it began."""
    data = config.data.class_path.rpartition(".")[2]
    what = Path(config.weights).stem if config.weights else task.run_name(config.model)
    when = os.environ.get("SLURM_JOB_ID") or time.strftime("%Y%m%d-%H%M%S")
    return f"{data}-{what}-{when}".lower()
