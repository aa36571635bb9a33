"""The contract of every datamodule: facts at construction, batches as dictionaries, each image where it belongs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, NotRequired, TypedDict, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightning_app.data.facts import Colour, DatasetFacts
from lightning_app.data.sampler import EvalSampler, Loader, PredictLoader, TrainLoader, TrainSampler
from lightning_app.util.described import Described
from lightning_app.util.errors import InputError

L = TypeVar("L", bound=Loader)
Stage = Literal["train", "val", "test", "predict"]
STAGES: dict[str, tuple[Stage, ...]] = {  # what each verb of Lightning's asks for
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}


class Sample(TypedDict):
    """What a dataset gives for one index."""

    image: Tensor  # (3, H, W) uint8
    mask: NotRequired[Tensor]  # (H, W) uint8 train ids; absent in prediction
    name: str  # the image's path under its root
    size: tuple[int, int]  # (H, W) of the label, or of the image on disk where there is none


class Batch(TypedDict):
    """What a step gets."""

    image: Tensor  # (B, 3, H, W) float32, RGB in 0..1
    mask: NotRequired[Tensor]  # (B, H, W) int64
    name: list[str]
    size: list[tuple[int, int]]


class SegmentationDataset(Dataset[Sample | InputError], ABC):
    """Images of one stage. Training asks for (epoch, index), so that augmentation can depend on both."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, key: int | tuple[int, int]) -> Sample | InputError:
        """A sample, or as a value the error of a file that cannot be used: raised in a worker process, it would come
        back wrapped in that process's traceback."""


def collate(samples: Sequence[Sample | InputError]) -> dict[str, Any] | InputError:
    """Stack; the first error stands for the whole batch (see ``Loader``)."""
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
        good.append(sample)
    first = good[0]
    for other in good[1:]:
        if other["image"].shape != first["image"].shape:
            (a, b), (c, d) = first["image"].shape[1:], other["image"].shape[1:]
            return InputError(
                f"{first['name']} is {b}x{a} but {other['name']} is {d}x{c}: no batch. Give --data.crop_size."
            )
    batch = {"image": torch.stack([s["image"] for s in good]), "name": [s["name"] for s in good]}
    if "mask" in first:
        batch["mask"] = torch.stack([s["mask"] for s in good])
    return batch | {"size": [s["size"] for s in good]}


def collate_usable(samples: Sequence[Sample | InputError]) -> dict[str, Any] | InputError:
    """Stack those that can be used, and say of the others why not."""
    good = [sample for sample in samples if not isinstance(sample, InputError)]
    batch = collate(good) if good else {}
    if isinstance(batch, InputError):
        return batch
    return batch | {"faults": [str(sample) for sample in samples if isinstance(sample, InputError)]}


class SegmentationDataModule(Described, LightningDataModule, ABC):
    """Images with one class per pixel.

    A subclass gives its facts and implements ``make_dataset``. Training batches are shuffled by (seed, epoch), cut
    evenly over the devices, and resume in mid-epoch; in evaluation every image comes exactly once on any number of
    devices.

    Attributes:
        facts: all that is known of the dataset.
        num_classes, ignore_index, class_names, palette: what a model needs of them.
        faults: what was said of files that could not be predicted.

    Args:
        batch_size: training images per device and step.
        val_batch_size: evaluation images per device and step, where all have one size; otherwise they come one by one.
        num_workers: processes that read ahead; 0 = read in the main one.
        seed: of the order and the augmentation.
    """

    def __init__(
        self, facts: DatasetFacts, *, batch_size: int = 8, val_batch_size: int = 1, num_workers: int = 2, seed: int = 0
    ) -> None:
        super().__init__()
        sizes = {"batch_size": (batch_size, 1), "val_batch_size": (val_batch_size, 1), "num_workers": (num_workers, 0)}
        for name, (value, least) in sizes.items():
            if value < least:
                raise InputError(f"data.{name} is {value}: give {least} or more")
        self.facts = facts
        self.num_classes = len(facts.classes)
        self.ignore_index = facts.ignore_index
        self.class_names: list[str] = list(facts.classes)
        self.palette: list[Colour] = list(facts.palette)
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.num_workers, self.seed = num_workers, seed
        # a device that gets no evaluation image waits for the others
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._datasets: dict[Stage, SegmentationDataset] = {}
        self.faults: list[str] = []

    @abstractmethod
    def make_dataset(self, stage: Stage) -> SegmentationDataset:
        """The images of one stage."""

    def same_size(self, stage: Stage) -> bool:
        """Whether all images of a stage, and their labels, have one size."""
        return True

    def dataset(self, stage: Stage) -> SegmentationDataset:
        """The images of one stage, made once."""
        if stage not in self._datasets:
            self._datasets[stage] = self.make_dataset(stage)
        return self._datasets[stage]

    def setup(self, stage: str) -> None:
        for name in STAGES[stage]:
            self.dataset(name)

    def train_dataloader(self) -> TrainLoader:
        dataset = self.dataset("train")
        progress = self._progress if self.trainer else None
        sampler = TrainSampler(len(dataset), self.batch_size, seed=self.seed, progress=progress, **self._place)
        return TrainLoader(
            dataset,
            sampler=sampler,
            batch_size=self.batch_size,
            collate_fn=collate,
            drop_last=True,
            **self._loading,
        )

    def val_dataloader(self) -> Loader:
        return self._evaluation_loader("val", Loader, collate)

    def test_dataloader(self) -> Loader:
        return self._evaluation_loader("test", Loader, collate)

    def predict_dataloader(self) -> PredictLoader:
        loader = self._evaluation_loader("predict", PredictLoader, collate_usable)
        loader.faults = self.faults
        return loader

    def _evaluation_loader(self, stage: Stage, kind: type[L], collate_fn: Callable[[Any], Any]) -> L:
        dataset = self.dataset(stage)
        batch_size = self.val_batch_size if self.val_batch_size > 1 and self.same_size(stage) else 1
        sampler = EvalSampler(len(dataset), **self._place)
        return kind(dataset, sampler=sampler, batch_size=batch_size, collate_fn=collate_fn, **self._loading)

    @property
    def _place(self) -> dict[str, int]:
        trainer = self.trainer
        return {"replicas": trainer.world_size, "rank": trainer.global_rank} if trainer else {"replicas": 1, "rank": 0}

    @property
    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            # a loader draws one number an epoch; from the global generator it would shift the dice of a resumed run
            "generator": torch.Generator(),
        }

    def _progress(self) -> tuple[int, int]:
        """Epoch and batches done in it, by the loop's own count, which is in every checkpoint.

        The epoch is counted in batches too, since Lightning's skips one where a run limited by steps is resumed from a
        checkpoint saved at the end of an epoch.
        """
        assert self.trainer is not None
        batches = self.trainer.fit_loop.epoch_loop.batch_progress
        done = batches.current.completed
        return (batches.total.completed - done) // int(self.trainer.num_training_batches), done

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """uint8 travels to the device; what a step gets is float32 in 0..1 and int64."""
        batch = dict(batch, image=batch["image"].float() / 255)
        if "mask" in batch:
            batch["mask"] = batch["mask"].long()
        return batch

    def label_counts(self, stage: Stage = "train") -> NDArray[np.int64]:
        """Pixels of each train id in the labels of a stage, those ignored at ``ignore_index``. Shape: (256,)."""
        dataset = self.dataset(stage)
        counts = np.zeros(256, dtype=np.int64)
        for index in range(len(dataset)):
            sample = dataset[index]
            if isinstance(sample, InputError):
                raise sample
            counts += np.bincount(sample["mask"].numpy().ravel(), minlength=256)
        return counts

    def class_statistics(self) -> list[int]:
        """Pixels of each class in the training labels."""
        return [int(count) for count in self.label_counts()[: self.num_classes]]
