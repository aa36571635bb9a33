"""The state that a training ends with, as ``last.ckpt``."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class FinalCheckpoint(Callback):
    """Write ``last.ckpt`` once more when a training ends.

    ModelCheckpoint leaves there what it wrote every so many steps, or after the last validation that was the best.
    """

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        saves, trial = trainer.checkpoint_callback, getattr(trainer, "fast_dev_run", False)
        if isinstance(saves, ModelCheckpoint) and saves.dirpath and saves.save_last and not trial:
            trainer.save_checkpoint(Path(saves.dirpath) / f"{saves.CHECKPOINT_NAME_LAST}.ckpt")
