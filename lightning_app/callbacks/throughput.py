"""How fast a run trains and how much memory it takes."""

# mypy: disable-error-code="override"
# Lightning's callbacks take any module; ours meet tasks alone.

import math
import sys
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_app.data.base import Batch


class Throughput(Callback):
    """Log train/images_per_s, train/peak_memory_mb and, by epoch, train/epoch_s.

    Images of all devices, seconds without validation, both since the last logged step. Memory in MB of 2**20 bytes:
    what torch had allocated on a CUDA device, the process's resident memory elsewhere.
    """

    def __init__(self) -> None:
        self._images = 0
        self._seconds = self._epoch_seconds = self._since = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = perf_counter()  # a run that goes on in mid-epoch starts none

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_seconds = 0.0
        self._since = perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = perf_counter()
        self._seconds += now - self._since
        self._epoch_seconds += now - self._since
        self._since = now
        self._images += len(batch) * trainer.world_size
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            pl_module.log("train/images_per_s", self._images / self._seconds, prog_bar=True)
            pl_module.log("train/peak_memory_mb", peak_memory(pl_module.device))
            self._images, self._seconds = 0, 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("train/epoch_s", self._epoch_seconds)


def peak_memory(device: torch.device) -> float:
    """The most memory taken so far, in MB of 2**20 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return math.nan
    import resource

    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
