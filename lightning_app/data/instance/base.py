"""The contract of datamodules for instance segmentation: pictures, and each object on them."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torchvision.transforms import v2

from lightning_app.data.bad_file import BadFile
from lightning_app.data.base import Batch, DataModule, Stage
from lightning_app.data.coco import CocoFile, Fault
from lightning_app.data.coco_records import CocoAnnotation, CocoCategory, CocoImage
from lightning_app.data.findings import Checked, Statistics
from lightning_app.data.images import image_size
from lightning_app.data.instance.dataset import InstanceDataset, Sample
from lightning_app.data.instance.instances import Instances
from lightning_app.data.instance.transforms import RandomWindow, ScaleJitter
from lightning_app.data.listing import files
from lightning_app.data.transforms import PhotometricJitter
from lightning_app.util.errors import InputError


@dataclass
class InstanceBatch(Batch):
    """Pictures of any sizes with their objects.

    Shape: image a list of (3, H, W) float32, RGB in 0..1.

    Args:
        coco: the entries of the images in their annotation file.
        targets: what to learn, in training: objects in the pixels of ``image``, without crowds.
        truth: what is annotated, in evaluation: in the pixels of the image on disk.
    """

    image: list[Tensor]  # type: ignore[assignment]  # pictures of other sizes make no tensor
    coco: list[CocoImage]
    targets: list[Instances] | None = None
    truth: list[tuple[CocoAnnotation, ...]] | None = None

    def to(self, device: torch.device | str) -> Self:
        """The pictures and what to learn of them on another device; Lightning would copy the annotations too."""
        targets = None if self.targets is None else [target.to(device) for target in self.targets]
        return replace(self, image=[image.to(device) for image in self.image], targets=targets)


class InstanceDataModule(DataModule):
    """Pictures and each object on them, as COCO's JSON says it.

    A subclass implements ``find_categories``, ``parse`` and ``folder``.

    Attributes:
        categories: the classes, in the order of the labels 0, 1, ...
        class_names: their names.
        category_ids: their ids in the annotation files.
        masks, image_size: what the network needs of them.
        splits: which split each stage takes.

    Args:
        masks: objects have masks; false = boxes alone.
        image_size: the longest short and long side that pictures are resized to, in training here, and in evaluation by
            the network; none = as they are.
        scale: range of the ratio by which training pictures are resized at random besides.
        crop_size: (H, W) of random windows for training; objects that are no more in it go. None = whole pictures.
        flip: mirror half of the training pictures.
        flip_vertical: turn half of them upside down, for pictures without an up.
        photometric: strength of the jitter of brightness, contrast and saturation (factors in 1 ± strength) and of hue
            (turns in ± strength / 10); 0 = none.
        skip_empty: leave training pictures without objects out.
        cache: keep all decoded pictures in memory.
        train_split: the split to train on.
        val_split: the split to validate on.
        test_split: the split to test on; none = that of validation.
        predict_folder: the pictures to predict; none = those of the test split.
    """

    def __init__(
        self,
        root: Path,
        *,
        masks: bool = True,
        image_size: tuple[int, int] | None = (800, 1333),
        scale: tuple[float, float] = (1.0, 1.0),
        crop_size: tuple[int, int] | None = None,
        flip: bool = True,
        flip_vertical: bool = False,
        photometric: float = 0.0,
        skip_empty: bool = False,
        cache: bool = False,
        train_split: str = "train",
        val_split: str = "val",
        test_split: str | None = None,
        predict_folder: Path | None = None,
        batch_size: int = 2,
        val_batch_size: int = 1,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, val_batch_size=val_batch_size, num_workers=num_workers, seed=seed)
        if not 0 < scale[0] <= scale[1]:
            raise InputError(f"scale {scale[0]}, {scale[1]}: give the smallest and the largest ratio, above 0")
        for name, size in (("crop_size", crop_size), ("image_size", image_size)):
            if size and min(size) < 1:
                raise InputError(f"{name} {size[0]}, {size[1]}: give two sides in pixels")
        self.root = Path(root).expanduser()
        self.masks, self.image_size = masks, image_size
        self.skip_empty, self.cache = skip_empty, cache
        self.predict_folder = Path(predict_folder).expanduser() if predict_folder else None
        self.splits: dict[Stage, str] = {"train": train_split, "val": val_split, "test": test_split or val_split}
        augmentation: list[v2.Transform] = [ScaleJitter(image_size, scale)]
        augmentation += [RandomWindow(crop_size)] if crop_size else []
        augmentation += [v2.RandomHorizontalFlip()] if flip else []
        augmentation += [v2.RandomVerticalFlip()] if flip_vertical else []
        augmentation += (
            [PhotometricJitter(photometric, photometric, photometric, photometric / 10)] if photometric else []
        )
        self.augmentation = v2.Compose(augmentation)
        self._files: dict[str, CocoFile] = {}
        self.categories = tuple(self.find_categories())
        self.class_names: list[str] = [category.name for category in self.categories]
        self.category_ids: list[int] = [category.id for category in self.categories]

    @abstractmethod
    def find_categories(self) -> Sequence[CocoCategory]:
        """The classes, in the order of their ids, before all annotations are read."""

    @abstractmethod
    def parse(self, split: str, fault: Fault | None = None) -> CocoFile:
        """The annotations of a split.

        Args:
            fault: is told of what cannot be used; none = the first of it is an error.

        Raises:
            InputError: there are none, or they cannot be read at all.
        """

    @abstractmethod
    def folder(self, split: str) -> Path:
        """Where the pictures of a split lie.

        Raises:
            InputError: they are not there.
        """

    def file(self, split: str) -> CocoFile:
        """The annotations of a split, read once.

        Raises:
            InputError: they cannot be used, or have other classes than the other splits.
        """
        if split not in self._files:
            file = self.parse(split)
            if file.categories != self.categories:
                raise InputError(
                    f"{file.path} has other categories than the other splits: {_list(file.categories)}, and not "
                    f"{_list(self.categories)}. Give all splits the same ids and names."
                )
            self._files[split] = file
        return self._files[split]

    def check(self) -> Checked:
        from lightning_app.data.instance.check import check  # which knows this class

        return check(self)

    def statistics(self) -> Statistics:
        from lightning_app.data.instance.check import statistics

        return statistics(self.file(self.splits["train"]))

    def make_dataset(self, stage: Stage) -> InstanceDataset:
        if stage == "predict":
            return self._prediction_set()
        split = self.splits[stage]
        file, training = self.file(split), stage == "train"
        images = [image for image in file.images if not (training and self.skip_empty) or file.of(image)]
        if not images:
            what = "with objects " if file.images else ""
            raise InputError(f"{file.path} lists no images {what}for split {split}. Give another --data.root.")
        return InstanceDataset(
            file,
            images,
            self.folder(split),
            masks=self.masks,
            transform=self.augmentation if training else None,
            seed=self.seed,
            cache=self.cache,
        )

    def _prediction_set(self) -> InstanceDataset:
        if self.predict_folder is None:
            split = self.splits["test"]
            return InstanceDataset(None, self.file(split).images, self.folder(split))
        paths = list(files(self.predict_folder).values())
        if not paths:
            raise InputError(f"{self.predict_folder}: no images to predict. Give --data.predict_folder.")
        images = [
            CocoImage(number, path.relative_to(self.predict_folder).as_posix(), *_size(path))
            for number, path in enumerate(paths, 1)
        ]
        return InstanceDataset(None, images, self.predict_folder)

    @staticmethod
    def collate(samples: Sequence[Sample]) -> InstanceBatch:
        """Pictures side by side, each of its own size."""
        return InstanceBatch(
            [sample["image"] for sample in samples],
            [sample["name"] for sample in samples],
            [sample["size"] for sample in samples],
            [sample["coco"] for sample in samples],
            [sample["targets"] for sample in samples] if "targets" in samples[0] else None,
            [sample["truth"] for sample in samples] if "truth" in samples[0] else None,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """uint8 travels to the device; what a step gets is float32 in 0..1."""
        return replace(batch, image=[image.float() / 255 for image in batch.image])


def _size(path: Path) -> tuple[int, int]:
    """(H, W); 1, 1 of what cannot be read: reading it will say why, and the others are predicted."""
    with suppress(BadFile):
        return image_size(path)
    return 1, 1


def _list(categories: Sequence[CocoCategory]) -> str:
    named = ", ".join(f"{category.id} {category.name}" for category in categories[:4])
    return named + (", ..." if len(categories) > 4 else "")
