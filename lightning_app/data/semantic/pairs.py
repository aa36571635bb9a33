"""Datasets of image and mask files."""

import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torchvision.transforms import v2

from lightning_app.data.bad_file import BadFile
from lightning_app.data.base import STAGES, Stage
from lightning_app.data.facts import DatasetFacts
from lightning_app.data.findings import Checked
from lightning_app.data.headers import check_headers, read_headers
from lightning_app.data.listing import Listing, files, read_list, require
from lightning_app.data.masks import MaskReader
from lightning_app.data.picture_files import Header
from lightning_app.data.semantic.base import SegmentationDataModule
from lightning_app.data.semantic.file_dataset import FileDataset, Pair
from lightning_app.data.transforms import PhotometricJitter, RandomScaleCrop
from lightning_app.util.errors import InputError, suggest
from lightning_app.util.remembered import cache_folder, recall, remember


class FileDataModule(SegmentationDataModule):
    """Image and mask files under one root.

    A subclass gives its facts and implements ``listing``.

    Args:
        root: the folder that holds the dataset.
        crop_size: (H, W) of the training crops; none = whole images, which then need one size.
        image_size: (H, W) that images are resized to first; the labels of evaluation keep their size.
        scale: range of the ratio by which training images are resized at random, in front of the crop.
        cat_max_ratio: draw a crop again where one class covers more than this share of it.
        flip: mirror half of the training images.
        photometric: strength of the jitter of brightness, contrast and saturation (factors in 1 ± strength) and of hue
            (turns in ± strength / 10); 0 = none.
        cache: keep all decoded images in memory.
        train_split: the split to train on.
        val_split: the split to validate on; none = the dataset's usual one.
        test_split: the split to test on; none = the dataset's usual one.
        fold: for cross-validation, [k, n]: of the images to train and to validate on together, in the order of their
            names, the part k of n (from 0) is to validate on and all others are to train on.
        predict_folder: the images to predict, with no masks; none = those of the test split.
    """

    def __init__(
        self,
        facts: DatasetFacts,
        root: Path,
        *,
        crop_size: tuple[int, int] | None = None,
        image_size: tuple[int, int] | None = None,
        scale: tuple[float, float] = (0.5, 2.0),
        cat_max_ratio: float = 0.75,
        flip: bool = True,
        photometric: float = 0.3,
        cache: bool = False,
        train_split: str = "train",
        val_split: str | None = None,
        test_split: str | None = None,
        fold: tuple[int, int] | None = None,
        predict_folder: Path | None = None,
        batch_size: int = 8,
        val_batch_size: int = 1,
        num_workers: int = 2,
        seed: int = 0,
        versions: int | None = None,
    ) -> None:
        super().__init__(
            facts,
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            num_workers=num_workers,
            seed=seed,
            versions=versions,
        )
        if not 0 < scale[0] <= scale[1]:
            raise InputError(f"scale {scale[0]}, {scale[1]}: give the smallest and the largest ratio, above 0")
        for name, size in (("crop_size", crop_size), ("image_size", image_size)):
            if size and min(size) < 1:
                raise InputError(f"{name} {size[0]}, {size[1]}: give height and width in pixels")
        self.root = Path(root).expanduser()
        self.image_size, self.cache = image_size, cache
        self.predict_folder = Path(predict_folder).expanduser() if predict_folder else None
        self.splits: dict[Stage, str] = {
            "train": train_split,
            "val": val_split or facts.val_split,
            "test": test_split or facts.test_split,
        }
        if fold and not 0 <= fold[0] < fold[1]:
            raise InputError(f"data.fold {fold[0]}, {fold[1]}: give a part from 0 to n - 1, and n")
        self.fold = fold
        self.read_mask = MaskReader(facts.label_map, colour_coded=facts.colour_coded)
        augmentation: list[v2.Transform] = []
        if crop_size:
            augmentation.append(
                RandomScaleCrop(crop_size, scale=scale, cat_max_ratio=cat_max_ratio, ignore_index=facts.ignore_index)
            )
        if flip:
            augmentation.append(v2.RandomHorizontalFlip())
        if photometric:
            augmentation.append(PhotometricJitter(photometric, photometric, photometric, photometric / 10))
        self.augmentation = v2.Compose(augmentation) if augmentation else None

    def fall_back_to_own_test_split(self) -> None:
        """Test on the dataset's own test split where the one that was chosen is not on disk but that is."""
        chosen, own = self.splits["test"], self.facts.test_split
        with suppress(InputError):
            self.listing(chosen)
            return
        with suppress(InputError):
            self.listing(own)
            self.splits["test"] = own
            rank_zero_only(print)(f"{self.root} has no {chosen}: tested on {own}", file=sys.stderr)

    def setup(self, stage: str) -> None:
        for name in STAGES[stage]:
            if name != "predict" and name not in self._datasets:
                self.check_headers(name)
        super().setup(stage)

    def check_headers(self, stage: Stage) -> None:
        """The quick part of ``contextzoo data check``: what the files' headers tell.

        Raises:
            InputError: the first file that a training would stop at, and how many more there are.
        """
        faults = check_headers(self.pairs(self.splits[stage]), self.root)
        if faults:
            more = f" ({len(faults) - 1} more such files: contextzoo data check)" if len(faults) > 1 else ""
            raise InputError(f"{faults[0]}{more}") from faults[0]

    @abstractmethod
    def listing(self, split: str) -> tuple[Mapping[str, Path], Mapping[str, Path]]:
        """Images and masks of a split, each by a key that an image shares with its mask.

        Raises:
            InputError: the split or its folder is missing.
        """

    def pairs(self, split: str) -> list[Pair]:
        """Images with their masks, in the order of their names.

        Raises:
            InputError: there are none, some are without the other, or two share a name.
        """
        learning = (self.splits["train"], self.splits["val"])
        if self.fold is None or split not in learning:
            return self._pairs(split)
        part, parts = self.fold
        together = sorted({pair for each in learning for pair in self._pairs(each)})
        first, last = (len(together) * edge // parts for edge in (part, part + 1))
        chosen = together[first:last] if split == learning[1] else together[:first] + together[last:]
        if not chosen:
            raise InputError(f"data.fold {part}, {parts}: {len(together)} images are too few for so many parts")
        return chosen

    def _pairs(self, split: str) -> list[Pair]:
        images, masks = self.listing(split)
        for listing in (images, masks):
            for first, second, *_ in listing.clashes.values() if isinstance(listing, Listing) else ():
                raise InputError(f"{first} and {second.name} share a name: remove one of them")
        for what, here, there in (("mask", images, masks), ("image", masks, images)):
            alone = sorted(here.keys() - there.keys())
            if alone:
                raise InputError(
                    f'{len(alone)} files of split "{split}" have no {what}, such as {here[alone[0]]}.'
                    f" Add the {what} or remove the file. (contextzoo data check)"
                )
        if not images:
            raise InputError(
                f'{self.root}: no images in split "{split}" of {self.facts.name}. Give another --data.root.'
            )
        return [Pair(images[key], masks[key]) for key in sorted(images)]

    def make_dataset(self, stage: Stage) -> FileDataset:
        if stage == "predict":
            return self._prediction_set()
        training = stage == "train"
        return FileDataset(
            self.pairs(self.splits[stage]),
            self.root,
            self.read_mask,
            image_size=self.image_size,
            resize_masks=training,
            transform=self.augmentation if training else None,
            seed=self.seed,
            cache=self.cache,
        )

    def _prediction_set(self) -> FileDataset:
        if self.predict_folder is None:
            images, root = list(self.listing(self.splits["test"])[0].values()), self.root
        else:
            images, root = list(files(self.predict_folder).values()), self.predict_folder
        if not images:
            raise InputError(f"{root}: no images to predict. Give --data.predict_folder.")
        return FileDataset([Pair(image) for image in images], root, self.read_mask, image_size=self.image_size)

    def label_counts(self, stage: Stage = "train") -> NDArray[np.int64]:
        """Pixels of each train id in the masks on disk; remembered until a mask or the label map changes."""
        counts, faults = self.label_counts_and_faults(stage)
        if faults:
            raise faults[0]
        return counts

    def label_counts_and_faults(self, stage: Stage = "train") -> tuple[NDArray[np.int64], list[BadFile]]:
        """The same over the masks that can be read, and what is wrong with the others."""
        masks = [pair.mask for pair in self.pairs(self.splits[stage]) if pair.mask is not None]
        fingerprint = sha256(repr(sorted(self.facts.label_map.items())).encode())
        for path in masks:
            state = path.stat() if path.exists() else None
            size, time = (state.st_size, state.st_mtime_ns) if state else (0, 0)
            fingerprint.update(f"{path.absolute()} {size} {time}\n".encode())
        memory = cache_folder("label_counts") / f"{fingerprint.hexdigest()}.json"
        if (known := recall(memory)) is not None:
            return np.array(known, dtype=np.int64), []
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(self._count, masks))
        faults = [each for each in found if isinstance(each, BadFile)]
        counts = sum((each for each in found if not isinstance(each, BadFile)), start=np.zeros(256, dtype=np.int64))
        if not faults:
            remember(memory, counts.tolist())
        return counts, faults

    def _count(self, mask: Path) -> NDArray[np.int64] | BadFile:
        try:
            return np.bincount(self.read_mask(mask).ravel(), minlength=256)
        except BadFile as error:
            return error

    def check(self) -> Checked:
        from lightning_app.data.semantic.check import checked  # which knows this class

        return checked(self)

    def survey(self) -> tuple[NDArray[np.int64], Sequence[tuple[int, int]], Sequence[str]]:
        pixels, bad = self.label_counts_and_faults()
        headers = self.image_headers("train").values()
        faults = [str(each) for each in (*bad, *headers) if isinstance(each, BadFile)]
        return pixels, [each.size for each in headers if isinstance(each, Header)], faults

    def image_headers(self, stage: Stage) -> dict[Path, Header | BadFile]:
        """The header of each image of a stage."""
        dataset = self.dataset(stage)
        assert isinstance(dataset, FileDataset)
        return read_headers((pair.image for pair in dataset.pairs), self.root)

    def same_size(self, stage: Stage) -> bool:
        headers = self.image_headers(stage).values()
        return len({header.size for header in headers if isinstance(header, Header)}) == 1

    def unknown_split(self, split: str, known: Sequence[str]) -> InputError:
        """The error for a split that the dataset does not have."""
        return InputError(
            f'{self.facts.name} has no split "{split}".{suggest(split, known)} (one of {", ".join(known)})'
        )


def listed_files(
    data: FileDataModule, split_list: str, image: str, mask: str, split: str
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks of a dataset whose splits are lists of names; ``image`` and ``mask`` hold {} for the name.

    A line of the list may hold paths instead, of the image and then its mask.
    """
    require(data.root, data.facts, f"the root of {data.facts.name}")
    path = data.root / split_list
    if not path.exists():
        known = sorted(other.stem for other in path.parent.glob("*.txt"))
        raise data.unknown_split(split, known) if known else InputError(f"{path} does not exist: the list of a split.")
    keys = [Path(line.split()[0]).stem for line in read_list(path)]
    masks = {key: data.root / mask.format(key) for key in keys}
    return {key: data.root / image.format(key) for key in keys}, {k: path for k, path in masks.items() if path.exists()}
