"""The contract of datamodules for semantic segmentation: images with one class per pixel, and their facts."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NotRequired, Self, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lightning_app.data.base import Batch, DataModule, ImageDataset, Stage
from lightning_app.data.facts import Colour, DatasetFacts
from lightning_app.data.findings import Statistics, said_sizes
from lightning_app.data.semantic.class_weights import balanced_weights, log_frequency_weights
from lightning_app.util.errors import InputError


class Sample(TypedDict):
    """What a dataset gives for one index."""

    image: Tensor  # (3, H, W) uint8
    mask: NotRequired[Tensor]  # (H, W) uint8 train ids; absent in prediction
    name: str  # the image's path under its root
    size: tuple[int, int]  # (H, W) of the label, or of the image on disk where there is none


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


class SegmentationDataset(ImageDataset[Sample]):
    """Images and masks of one stage."""


class SegmentationDataModule(DataModule):
    """Images with one class per pixel.

    A subclass gives its facts and implements ``make_dataset``.

    Attributes:
        facts: all that is known of the dataset.
        num_classes, ignore_index, class_names, palette: what a model needs of them.

    Args:
        facts: of the dataset.
        options: as ``DataModule`` takes them.
    """

    def __init__(self, facts: DatasetFacts, **options: Any) -> None:
        super().__init__(**options)
        self.facts = facts
        self.num_classes = len(facts.classes)
        self.ignore_index = facts.ignore_index
        self.class_names: list[str] = list(facts.classes)
        self.palette: list[Colour] = list(facts.palette)

    @abstractmethod
    def make_dataset(self, stage: Stage) -> SegmentationDataset:
        """The images of one stage."""

    @staticmethod
    def collate(samples: Sequence[Sample]) -> SemanticBatch:
        return collate(samples)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """As every datamodule's; masks become int64."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return batch if batch.mask is None else replace(batch, mask=batch.mask.long())

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

    def statistics(self) -> Statistics:
        """Pixels and suggested weights of each class, and how large the images are.

        Raises:
            InputError: no pixel has a class.
        """
        pixels, sizes, faults = self.survey()
        known = pixels[: self.num_classes]
        if not known.any():
            raise InputError(f"{self.facts.name}: no labelled pixel in the training split. (contextzoo data check)")
        gentle, balanced = log_frequency_weights(torch.from_numpy(known)), balanced_weights(torch.from_numpy(known))
        rows = [
            (name, str(count), f"{100 * count / known.sum():.2f}", f"{gentle[i]:.3f}", f"{balanced[i]:.3f}")
            for i, (name, count) in enumerate(zip(self.class_names, known, strict=True))
        ]
        columns = ("class", "pixels", "share %", "log_frequency", "balanced")
        lines = [f"ignored: {100 * pixels[self.ignore_index] / pixels.sum():.2f} % of {pixels.sum()} pixels"]
        return Statistics(columns, rows, [*lines, *said_sizes(sizes)], faults)

    def survey(self) -> tuple[NDArray[np.int64], Sequence[tuple[int, int]], Sequence[str]]:
        """Pixels of each train id in the training split, height and width of its images, what could not be read."""
        return self.label_counts(), [], []

    def class_statistics(self) -> list[int]:
        """Pixels of each class in the training labels."""
        return [int(count) for count in self.label_counts()[: self.num_classes]]


def collate(samples: Sequence[Sample]) -> SemanticBatch:
    """Stack; masks of several sizes are padded.

    Raises:
        InputError: the images differ in size.
    """
    first = samples[0]
    for other in samples[1:]:
        if other["image"].shape != first["image"].shape:
            (a, b), (c, d) = first["image"].shape[1:], other["image"].shape[1:]
            raise InputError(
                f"{first['name']} is {b}x{a} but {other['name']} is {d}x{c}: no batch. Give --data.crop_size."
            )
    masks = [sample["mask"] for sample in samples if "mask" in sample]
    return SemanticBatch(
        torch.stack([sample["image"] for sample in samples]),
        [sample["name"] for sample in samples],
        [sample["size"] for sample in samples],
        _stacked(masks) if masks else None,
    )


def _stacked(masks: Sequence[Tensor]) -> Tensor:
    """Maps side by side, the smaller ones padded below and on the right."""
    height, width = (max(mask.shape[side] for mask in masks) for side in (0, 1))
    return torch.stack([F.pad(mask, (0, width - mask.shape[1], 0, height - mask.shape[0])) for mask in masks])
