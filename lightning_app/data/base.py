"""The contract of every datamodule: typed batches, each image where it belongs, a run that goes on where it was."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Generic, Literal, Self, TypeVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset

from lightning_app._moved import moved_names
from lightning_app.data.findings import Checked, Statistics
from lightning_app.data.sampler import EvalSampler, Loader, PredictLoader, TrainLoader, TrainSampler
from lightning_app.util.described import Described
from lightning_app.util.errors import InputError

L = TypeVar("L", bound=Loader)
S = TypeVar("S")
Stage = Literal["train", "val", "test", "predict"]
STAGES: dict[str, tuple[Stage, ...]] = {  # what each verb of Lightning's asks for
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}


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


class ImageDataset(Dataset[S | InputError], ABC, Generic[S]):
    """Images of one stage. Training asks for (version, index), so that augmentation can depend on both."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, key: int | tuple[int, int]) -> S | InputError:
        """A sample, or as a value the error of a file that cannot be used: raised in a worker process, it would come
        back wrapped in that process's traceback."""


class DataModule(Described, LightningDataModule, ABC):
    """Images and what a task is to learn of them.

    A subclass implements ``make_dataset`` and ``collate``; what its task takes from it by name (``Task.from_data``) are
    attributes. Training batches are shuffled by (seed, epoch), cut evenly over the devices, and resume in mid-epoch; in
    evaluation every image comes exactly once on any number of devices.

    Attributes:
        faults: what was said of files that could not be predicted.

    Args:
        batch_size: training images per device and step.
        val_batch_size: evaluation images per device and step, where all have one size; otherwise they come one by one.
        num_workers: processes that read ahead; 0 = read in the main one.
        seed: of the order and the augmentation.
        versions: augmented versions of each training image, which the epochs take in turn, as model.feature_cache wants
            it; none = a new one in each epoch.
    """

    def __init__(
        self,
        *,
        batch_size: int = 8,
        val_batch_size: int = 1,
        num_workers: int = 2,
        seed: int = 0,
        versions: int | None = None,
    ) -> None:
        super().__init__()
        sizes = {"batch_size": (batch_size, 1), "val_batch_size": (val_batch_size, 1), "num_workers": (num_workers, 0)}
        for name, (value, least) in (sizes | ({} if versions is None else {"versions": (versions, 1)})).items():
            if value < least:
                raise InputError(f"data.{name} is {value}: give {least} or more")
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.num_workers, self.seed, self.versions = num_workers, seed, versions
        # a device that gets no evaluation image waits for the others
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._datasets: dict[Stage, ImageDataset[Any]] = {}
        self.faults: list[str] = []

    @abstractmethod
    def make_dataset(self, stage: Stage) -> ImageDataset[Any]:
        """The images of one stage."""

    @staticmethod
    @abstractmethod
    def collate(samples: Sequence[Any]) -> Batch:
        """The batch of some samples.

        Raises:
            InputError: they make none.
        """

    def check(self) -> Checked:
        """All that is wrong with its files, each of them read; nothing where it has none."""
        return Checked()

    def statistics(self) -> Statistics:
        """What there is of each class in the training split.

        Raises:
            InputError: nothing is known of it.
        """
        raise InputError(f"{type(self).__name__} has no statistics")

    def fall_back_to_own_test_split(self) -> None:
        """Test on the dataset's own test split where the one that was chosen is not on disk but that is."""

    def same_size(self, stage: Stage) -> bool:
        """Whether all images of a stage, and their labels, have one size."""
        return True

    def dataset(self, stage: Stage) -> ImageDataset[Any]:
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
        sampler = TrainSampler(
            len(dataset), self.batch_size, seed=self.seed, versions=self.versions, progress=progress, **self._place
        )
        return TrainLoader(
            dataset,
            sampler=sampler,
            batch_size=self.batch_size,
            collate_fn=partial(collated, self.collate),
            drop_last=True,
            **self._loading,
        )

    def val_dataloader(self) -> Loader:
        return self._evaluation_loader("val", Loader, partial(collated, self.collate))

    def test_dataloader(self) -> Loader:
        return self._evaluation_loader("test", Loader, partial(collated, self.collate))

    def predict_dataloader(self) -> PredictLoader:
        loader = self._evaluation_loader("predict", PredictLoader, partial(collated_usable, self.collate))
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
        """uint8 travels to the device; what a step gets is float32 in 0..1."""
        return replace(batch, image=batch.image.float() / 255)


def collated(collate: Callable[[Sequence[Any]], Batch], samples: Sequence[Any]) -> Batch | InputError:
    """The batch of some samples; the first error stands for the whole of it (see ``Loader``)."""
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    try:
        return collate(samples)
    except InputError as error:
        return error


def collated_usable(
    collate: Callable[[Sequence[Any]], Batch], samples: Sequence[Any]
) -> tuple[Batch | None, list[str]] | InputError:
    """The batch of those that can be used, and of the others what is wrong with them."""
    good = [sample for sample in samples if not isinstance(sample, InputError)]
    batch = collated(collate, good) if good else None
    if isinstance(batch, InputError):
        return batch
    return batch, [str(sample) for sample in samples if isinstance(sample, InputError)]


__getattr__ = moved_names(__name__)
