"""Random numbers that go on where a killed run left off."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import distributed


class GeneratorStates(Callback):
    """Keep the states of torch's (CPU and CUDA), numpy's and Python's generators in every checkpoint, for each device.

    They come back in front of the first training step and not earlier, since what runs in between draws numbers too.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        states = [_states()]
        if distributed.is_available() and distributed.is_initialized():
            states *= distributed.get_world_size()
            distributed.all_gather_object(states, _states())
        return {"ranks": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._loaded is not None:
            ranks = self._loaded["ranks"]
            if trainer.global_rank < len(ranks):
                _restore(ranks[trainer.global_rank])
            self._loaded = None


def _states() -> dict[str, Any]:
    algorithm, key, *rest = np.random.get_state()
    cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if cuda else None,
        "numpy": (
            algorithm,
            np.asarray(key).tolist(),
            *rest,
        ),  # weights_only takes no array
        "python": random.getstate(),
    }


def _restore(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])
