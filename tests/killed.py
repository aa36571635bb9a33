"""Callbacks that kill or signal their own process, as a machine that loses power or a person at it would."""

import multiprocessing
import os
import resource
import shutil
import signal

from lightning.pytorch import Callback, LightningModule, Trainer


class KilledAt(Callback):
    """SIGKILL in front of the training batch after ``steps`` steps, unless this is the resumed run."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if trainer.global_step == self.steps and trainer.ckpt_path is None:
            os.kill(os.getpid(), signal.SIGKILL)


class SignalledIn(Callback):
    """A signal in a hook, once ``steps`` steps are done, unless this is the resumed run."""

    def __init__(self, hook: str, steps: int, number: int = int(signal.SIGINT)) -> None:
        def send(trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
            last = trainer.global_rank == trainer.world_size - 1  # of all devices
            if last and trainer.global_step >= steps and trainer.ckpt_path is None and not self.sent:
                self.sent = True
                os.kill(os.getpid(), number)

        self.sent = False
        setattr(self, hook, send)


class Breaks(Callback):
    """Takes away what a training needs, in a hook: its folder, space on the disk, a reading process or a rank."""

    def __init__(self, hook: str, what: str) -> None:
        def act(trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
            if trainer.global_step < 2:
                return
            if what == "run":
                shutil.rmtree(trainer.default_root_dir, ignore_errors=True)
            elif what == "disk":
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            elif what == "worker":
                for worker in multiprocessing.active_children():
                    worker.kill()
            elif what == f"rank{trainer.global_rank}":
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(self, hook, act)
