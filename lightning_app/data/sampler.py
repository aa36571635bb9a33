"""Which image comes when, on which device, whatever the number of workers and however often the run was killed."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn  # type: ignore[attr-defined]
from torch.utils.data import DataLoader, DistributedSampler

from lightning_app.util.errors import InputError


class TrainSampler(DistributedSampler[tuple[int, int]]):
    """(version, index) pairs in an order seeded by (seed, epoch), cut evenly over the devices.

    The pair lets the dataset seed its augmentation by (seed, version, index). A DistributedSampler by type, so that
    Lightning does not wrap it in another one.

    Args:
        versions: augmented versions of each image, which the epochs take in turn; none = a new one in each epoch.
        progress: gives the epoch and how many of its batches are behind us; none = the epoch set, from its start.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int = 0,
        replicas: int = 1,
        rank: int = 0,
        versions: int | None = None,
        progress: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        super().__init__(range(length), replicas, rank, seed=seed, drop_last=True)  # type: ignore[arg-type]
        self.length, self.batch_size, self.versions, self.progress = length, batch_size, versions, progress
        if len(self) < batch_size:
            devices = f" on each of {replicas} devices" if replicas > 1 else ""
            fix = f"Give --data.batch_size {len(self)} or less." if len(self) else "Add images or use fewer devices."
            raise InputError(f"{length} training images make no batch of {batch_size}{devices}. {fix}")

    def __len__(self) -> int:
        return self.length // self.num_replicas

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, done = self.progress() if self.progress else (self.epoch, 0)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.length)
        mine = order[self.rank :: self.num_replicas][: len(self)]
        version = epoch % self.versions if self.versions else epoch
        return iter([(version, int(index)) for index in mine[done * self.batch_size :]])


class EvalSampler(DistributedSampler[int]):
    """Every index once, dealt out over the devices without padding, so the shares may differ by one."""

    def __init__(self, length: int, *, replicas: int = 1, rank: int = 0) -> None:
        super().__init__(range(length), replicas, rank, shuffle=False)  # type: ignore[arg-type]
        self.indices = range(rank, length, replicas)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


class Loader(DataLoader[Any]):
    """Starts its workers with the first batch asked for, and hands a bad file's error on as it is.

    Lightning makes the iterator of a resumed run before it has set its counters; by the first batch it has.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, InputError):
                raise batch
            yield batch


class PredictLoader(Loader):
    """Says of each file that cannot be used what is wrong with it, and goes on with the others.

    Attributes:
        faults: what was said.
    """

    faults: list[str]

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch, faults in super().__iter__():
            for fault in faults:
                self.faults.append(fault)
                print(fault, file=sys.stderr, flush=True)
            if batch is not None:
                yield batch


class TrainLoader(Loader):
    """A loader that resumes in mid-epoch (see ``TrainSampler``).

    Its state holds no position but what the position's meaning hangs on.
    """

    sampler: TrainSampler

    def state_dict(self) -> dict[str, int]:
        sampler = self.sampler
        return {
            "images": sampler.length,
            "batch_size": sampler.batch_size,
            "devices": sampler.num_replicas,
            "seed": sampler.seed,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        changed = [
            f"{key} {state.get(key)} -> {now}" for key, now in self.state_dict().items() if state.get(key) != now
        ]
        if changed:
            rank_zero_warn(
                f"Resuming in mid-epoch with another order of images ({', '.join(changed)}):"
                " some come twice in this epoch and some not at all."
            )


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed torch's global generator by ``key`` and put its state back afterwards."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
        yield
