"""The contract of every datamodule: facts at construction, typed batches, each image where it belongs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NotRequired, Self, TypedDict, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
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


@dataclass
class Batch:
    """What a step of any task gets; a task's own adds its labels. ``batch[:n]`` holds the first n images.

    Every field has one entry for each image. Not frozen, since Lightning fills a copy when it moves it to a device.

    Shape: image (B, 3, H, W) float32, RGB in 0..1.

    Args:
        names: the images' files.
        sizes: height and width of each label, or of the image on disk where there is none.
    """

    image: Tensor
    names: list[str]
    sizes: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, part: slice) -> Self:
        return self._each(lambda value: value[part])

    def singles(self) -> list[Self]:
        """Each image as a batch of its own."""
        return [self[place : place + 1] for place in range(len(self))]

    def pin_memory(self) -> Self:
        """Tensors in pinned memory, as torch's loaders ask for it."""
        return self._each(lambda value: value.pin_memory() if isinstance(value, Tensor) else value)

    def _each(self, change: Callable[[Any], Any]) -> Self:
        changed: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            changed[each.name] = None if value is None else change(value)
        return replace(self, **changed)


@dataclass
class SemanticBatch(Batch):
    """Images with one class per pixel.

    Shape: mask (B, H, W) int64, absent in prediction. Where labels differ in size they are padded below and on the
    right; ``sizes`` tells what counts.
    """

    mask: Tensor | None = None

    @property
    def target(self) -> Tensor:
        """The mask of a batch that must have one."""
        assert self.mask is not None, "a batch for prediction has no mask"
        return self.mask

    def of_one_size(self) -> list[Self]:
        """The batch where its labels have one size, else each of its images alone."""
        if len(set(self.sizes)) == 1:
            return [self]
        return self.singles()

    def __getitem__(self, part: slice) -> Self:
        """The images of a part; the mask of one alone has its own size."""
        batch = super().__getitem__(part)
        if len(batch) == 1 and batch.mask is not None:
            height, width = batch.sizes[0]
            batch.mask = batch.mask[:, :height, :width]
        return batch


class SegmentationDataset(Dataset[Sample | InputError], ABC):
    """Images of one stage. Training asks for (epoch, index), so that augmentation can depend on both."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, key: int | tuple[int, int]) -> Sample | InputError:
        """A sample, or as a value the error of a file that cannot be used: raised in a worker process, it would come
        back wrapped in that process's traceback."""


def collate(samples: Sequence[Sample | InputError]) -> SemanticBatch | InputError:
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
    masks = [sample["mask"] for sample in good if "mask" in sample]
    return SemanticBatch(
        torch.stack([sample["image"] for sample in good]),
        [sample["name"] for sample in good],
        [sample["size"] for sample in good],
        _stacked(masks) if masks else None,
    )


def collate_usable(samples: Sequence[Sample | InputError]) -> tuple[SemanticBatch | None, list[str]] | InputError:
    """Stack those that can be used, and say of the others why not."""
    good = [sample for sample in samples if not isinstance(sample, InputError)]
    batch = collate(good) if good else None
    if isinstance(batch, InputError):
        return batch
    return batch, [str(sample) for sample in samples if isinstance(sample, InputError)]


def _stacked(masks: Sequence[Tensor]) -> Tensor:
    """Maps side by side, the smaller ones padded below and on the right."""
    height, width = (max(mask.shape[side] for mask in masks) for side in (0, 1))
    return torch.stack([F.pad(mask, (0, width - mask.shape[1], 0, height - mask.shape[0])) for mask in masks])


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
        mask = None if batch.mask is None else batch.mask.long()
        return replace(batch, image=batch.image.float() / 255, mask=mask)

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
