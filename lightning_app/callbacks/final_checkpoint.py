"""The state that a training ends with, as ``last.ckpt``, whoever ends it."""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Final

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, WeightAveraging

from lightning_app.reading.checkpoints import LAST
from lightning_app.runs.folders import go_on
from lightning_app.util.errors import Stopped

SIGNALS: Final = {
    getattr(signal, name): word
    for name, word in {"SIGINT": "Interrupted", "SIGTERM": "Terminated", "SIGUSR1": "Stopped by SIGUSR1"}.items()
    if hasattr(signal, name)
}


class FinalCheckpoint(Checkpoint):
    """Write ``last.ckpt`` once more when a training ends, and when Ctrl-C, SIGTERM or SLURM's SIGUSR1 stops it.

    ModelCheckpoint leaves there what it wrote every so many steps, or after the last validation that was the best. A
    first signal stops after the step at hand, or in mid-validation, on all devices at once; a second one stops the
    process where it is.

    Raises:
        Stopped: the state is saved; the line says how to go on.
    """

    def __init__(self) -> None:
        self._signal = 0
        self._process = 0
        self._speaks = False
        self._least_batches = 0  # of any device in this validation

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning has set its own handlers by now, and puts back those of before when it ends."""
        self._signal, self._process, self._speaks = 0, os.getpid(), trainer.is_global_zero
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._on_signal)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if self._is_asked(trainer):
            self._stop(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        batches = torch.tensor(int(sum(trainer.num_val_batches)), device=pl_module.device)
        # the devices' shares differ by an image, and all must ask each other equally often
        self._least_batches = int(trainer.strategy.reduce(batches, reduce_op="min")) if trainer.world_size > 1 else 1

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        counts = trainer.world_size == 1 or batch_idx < self._least_batches
        if trainer.state.fn == "fit" and not trainer.sanity_checking and counts and self._is_asked(trainer):
            _rewind_validation(trainer, pl_module)
            self._stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a process that reads images, which got it too; it ends with its parent
            return
        if self._signal:
            if sys.stdout.isatty():
                os.write(1, b"\x1b[?25h")  # the bar had hidden the cursor
            os._exit(128 + number)
        self._signal = number
        if self._speaks:  # not by print(), which may be what the signal interrupted
            os.write(2, b"\nStopping after this step; a second Ctrl-C stops at once, without saving\n")

    def _is_asked(self, trainer: Trainer) -> bool:
        """Whether a signal has come, on any device."""
        if trainer.world_size > 1:
            number = torch.tensor(self._signal, device=trainer.strategy.root_device)
            self._signal = int(trainer.strategy.reduce(number, reduce_op="max"))
        return self._signal != 0

    def _stop(self, trainer: Trainer) -> None:
        saved = self._save(trainer)
        line = f"{SIGNALS[self._signal]} at step {trainer.global_step}. "
        line += f"Go on with {go_on(Path(trainer.default_root_dir))}" if saved else "No callback saves checkpoints."
        raise Stopped(self._signal, line if trainer.is_global_zero else "")

    def _save(self, trainer: Trainer) -> bool:
        saves, trial = trainer.checkpoint_callback, getattr(trainer, "fast_dev_run", False)
        if not (isinstance(saves, ModelCheckpoint) and saves.dirpath and saves.save_last and not trial):
            return False
        trainer.save_checkpoint(Path(saves.dirpath) / LAST)
        return True


def _rewind_validation(trainer: Trainer, pl_module: LightningModule) -> None:
    """Make the loops say that validation has not seen a batch, so that a resumed run begins it anew.

    Lightning would go on with it after the batches that were seen, whose scores are gone (lightning 2.6).
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging):
            callback.on_validation_epoch_end(trainer, pl_module)  # puts the weights that train back
    progress: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    before = progress.total.completed - progress.current.completed
    for count, done in ((progress.total, before), (progress.current, 0)):
        count.ready = count.started = done + 1
        count.processed = count.completed = done
    progress.is_last_batch = False
