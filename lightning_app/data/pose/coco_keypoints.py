"""COCOKeypoints: people of COCO 2017, or anything whose keypoints stand in a file of that kind."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_app.data import coco
from lightning_app.data.bad_file import BadFile
from lightning_app.data.base import ImageDataset, Stage
from lightning_app.data.coco import CocoFile
from lightning_app.data.coco_records import CocoAnnotation, CocoCategory, CocoImage
from lightning_app.data.findings import Checked, Statistics
from lightning_app.data.images import image_size
from lightning_app.data.listing import files
from lightning_app.data.pose.augment import Augmentation
from lightning_app.data.pose.base import PoseDataModule, PoseSample
from lightning_app.data.pose.boxes import Boxes, is_usable, read_detections, true_corners
from lightning_app.data.pose.check import check, statistics
from lightning_app.data.pose.crops import Cut, PhotographDataset, Photographs, TrainingDataset
from lightning_app.data.pose.facts import SIGMA, Keypoints, Pair, read_facts
from lightning_app.util.errors import InputError, suggest

FILES = ("annotations/{}.json", "annotations/person_keypoints_{}2017.json", "annotations/person_keypoints_{}.json")
FOLDERS = ("{}2017", "images/{}2017", "images/{}", "images", "{}")


class COCOKeypoints(PoseDataModule):
    """Keypoints in COCO's JSON: COCO 2017 itself, or your own things with your own points.

    A split is ``annotations/SPLIT.json`` under the root (or person_keypoints_SPLIT2017.json), its pictures lie in
    ``images/`` (or SPLIT2017/, images/SPLIT/). What the points are stands in the file: names and skeleton in its
    category, ``flip_pairs`` and ``sigmas`` in its ``info``.

    Args:
        root: the folder that holds annotations/ and the pictures.
        boxes: where evaluation looks: truth = at the boxes of the annotations; whole = at whole pictures of one thing
            each; or a JSON file of detections. Every score says which. Training looks at true boxes, or whole pictures.
        category: which class of the file; none = the one that has keypoints.
        augmentation: how much training crops vary.
        sigmas: the points' constants in OKS, instead of the file's.
        flip_pairs: pairs of points that a mirror swaps, counted from 0, instead of the file's.
        images: the folder of the pictures, where it is none of the usual ones.
        cache: keep all decoded pictures in memory.
        train_split: the split to train on; a path of a JSON file does as well, and so for the next two.
        val_split: the split to validate on.
        test_split: the split to test on.
        predict_folder: pictures to predict, as whole ones; none = those of the test split.
        keypoint_names: of the points, where pictures are predicted and no file says so.
    """

    def __init__(
        self,
        root: Path = Path("data/coco"),
        *,
        boxes: Literal["truth", "whole"] | Path = "truth",
        category: str | None = None,
        augmentation: Augmentation = Augmentation(),
        sigmas: list[float] | None = None,
        flip_pairs: list[Pair] | None = None,
        images: Path | None = None,
        cache: bool = False,
        train_split: str = "train",
        val_split: str = "val",
        test_split: str = "val",
        predict_folder: Path | None = None,
        keypoint_names: list[str] | None = None,
        batch_size: int = 32,
        val_batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        self.root = Path(root).expanduser()
        self.splits: dict[Stage, str] = {"train": train_split, "val": val_split, "test": test_split}
        self.category_name, self.images = category, images
        self.augmentation, self.cache = augmentation, cache
        self.predict_folder = Path(predict_folder).expanduser() if predict_folder else None
        self.boxes = "whole" if predict_folder else boxes if boxes in ("truth", "whole") else Path(boxes).expanduser()
        self._read: dict[Path, CocoFile] = {}
        split = next((each for each in self.splits.values() if self._path(each).exists()), None)
        if predict_folder and keypoint_names and split is None:
            thing = CocoCategory(1, category or "object", tuple(keypoint_names))
            facts = Keypoints(thing.keypoints, sigmas=(SIGMA,) * len(keypoint_names))
        else:
            file = self.file(split or train_split)
            thing = self.category(file)
            facts = read_facts(file, thing, sigmas=sigmas, flip_pairs=flip_pairs)
        super().__init__(
            facts,
            thing.name,
            thing.id,
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        named = {"truth": "ground-truth boxes", "whole": "whole pictures"}
        self.box_source = named[str(self.boxes)] if self.boxes in named else f"the boxes of {Path(self.boxes).name}"

    def file(self, split: str) -> CocoFile:
        """The annotations of a split.

        Raises:
            InputError: there are none, or they cannot be read.
        """
        path = self._path(split)
        if path not in self._read:
            self._read[path] = coco.read(self._existing(split))
        return self._read[path]

    def parse(self, split: str, fault: coco.Fault) -> CocoFile:
        """What can be used of the annotations of a split; ``fault`` is told of all else."""
        path = self._existing(split)
        self._read[path] = file = coco.parse(path, fault)
        return file

    def check(self) -> Checked:
        return check(self)

    def statistics(self) -> Statistics:
        return statistics(self, self.splits["train"])

    def _existing(self, split: str) -> Path:
        path = self._path(split)
        if path.exists():
            return path
        if not self.root.is_dir():
            state = "is not a folder" if self.root.exists() else "does not exist"
            raise InputError(f"{self.root} {state}: the root of the data. Give the right --data.root.")
        known = sorted(each.stem for each in (self.root / "annotations").glob("*.json"))
        has = f" (it has {', '.join(known)})" if known else ""
        raise InputError(f"{path} does not exist: the annotations of {split}.{suggest(split, known)}{has}")

    def _path(self, split: str) -> Path:
        if split.endswith(".json"):
            return self.root / split
        places = [self.root / each.format(split) for each in FILES]
        return next((path for path in places if path.exists()), places[0])

    def category(self, file: CocoFile) -> CocoCategory:
        """The class whose keypoints are learned.

        Raises:
            InputError: the file has none, or several.
        """
        named = {each.name: each for each in file.categories if each.keypoints}
        if self.category_name is not None:
            if self.category_name not in named:
                close = suggest(self.category_name, named)
                raise InputError(f'{file.path} has no keypoints of "{self.category_name}".{close} (of {_list(named)})')
            return named[self.category_name]
        if len(named) != 1:
            fix = "Give one of them as --data.category." if named else "Add their names to a category."
            raise InputError(f"{file.path} has keypoints of {_list(named) or 'nothing'}. {fix}")
        return next(iter(named.values()))

    def annotations(self, split: str, image: CocoImage) -> tuple[CocoAnnotation, ...]:
        """What is marked of the learned class in one picture of a split, without outlines."""
        file = self.file(split)
        category = self.category(file).id
        return tuple(replace(each, segmentation=None) for each in file.of(image) if each.category_id == category)

    def folder(self, split: str) -> Path:
        """Where the pictures of a split lie.

        Raises:
            InputError: the first of them is in none of the usual folders.
        """
        file = self.file(split)
        if not file.images:
            raise InputError(f"{file.path} lists no images: give another split.")
        name = file.images[0].file_name
        if self.images is not None:
            return self.root / Path(self.images).expanduser()
        places = [self.root / each.format(split) for each in FOLDERS] + [self.root]
        found = next((place for place in places if (place / name).is_file()), None)
        if found is None:
            tried = ", ".join(dict.fromkeys(place.name for place in places[:-1]))
            raise InputError(f"{name} of {file.path} is in none of {tried} in {self.root}: give --data.images FOLDER")
        return found

    def looked_at(self, split: str) -> list[tuple[Path, CocoImage, Boxes]]:
        """Each picture of a split and the boxes that evaluation looks at.

        Raises:
            InputError: the detections cannot be read.
        """
        file, folder = self.file(split), self.folder(split)
        found = self._detections(file) if isinstance(self.boxes, Path) else {}
        items = []
        for image in file.images:
            if self.boxes == "whole":
                boxes = Boxes.whole(image)
            elif self.boxes == "truth":
                usable = [each for each in self.annotations(split, image) if is_usable(each, image)]
                boxes = Boxes.of(true_corners(each, image) for each in usable)
            else:
                boxes = found.get(image.id, Boxes.of([]))
            items.append((folder / image.file_name, image, boxes))
        return items

    def _detections(self, file: CocoFile) -> dict[int, Boxes]:
        path = self.root / self.boxes
        found, others = read_detections(path, {image.id: image for image in file.images}, self.category(file).id)
        if not found:
            raise InputError(f"{path} has no box in an image of {file.path}: give the detections of that split")
        if others:
            _say(f"{path}: {others} boxes are in no image of {file.path.name}, and left out")
        return found

    def make_dataset(self, stage: Stage) -> ImageDataset[PoseSample]:
        folder = self.predict_folder if stage == "predict" and self.predict_folder else self.root
        photographs, cut = Photographs(folder, self.cache), Cut(self.input_size, self.udp)
        if stage == "train":
            items = self._learned(self.splits["train"])
            return TrainingDataset(photographs, items, cut, self.facts, self.augmentation, self.seed)
        if stage == "predict":
            return PhotographDataset(photographs, self._predicted(), cut)
        split = self.splits[stage]
        truth = {image.id: self.annotations(split, image) for image in self.file(split).images}
        return PhotographDataset(photographs, self.looked_at(split), cut, truth)

    def _learned(self, split: str) -> list[tuple[Path, CocoImage, Tensor, Tensor]]:
        folder, items = self.folder(split), []
        for image in self.file(split).images:
            usable = [each for each in self.annotations(split, image) if is_usable(each, image)]
            if self.boxes == "whole" and len(usable) > 1:
                raise InputError(
                    f"{image.file_name} has {len(usable)} {self.class_names[0]}s: whole pictures show one. Give "
                    "--data.boxes truth"
                )
            for each in usable:
                marked = torch.tensor(each.keypoints, dtype=torch.float64).reshape(-1, 3)
                boxes = Boxes.whole(image) if self.boxes == "whole" else Boxes.of([true_corners(each, image)])
                items.append((folder / image.file_name, image, boxes.corners[0], marked))
        if not items:
            raise InputError(f"{self.file(split).path} has no labelled keypoint in a box: nothing to train on.")
        return items

    def _predicted(self) -> list[tuple[Path, CocoImage, Boxes]]:
        if self.predict_folder is None:
            return self.looked_at(self.splits["test"])
        paths = list(files(self.predict_folder).values())
        if not paths:
            raise InputError(f"{self.predict_folder}: no images to predict. Give --data.predict_folder.")
        items = []
        for number, path in enumerate(paths, 1):
            try:
                height, width = image_size(path)
            except BadFile:
                height = width = 1  # reading will say what is wrong, and the others are predicted
            image = CocoImage(number, path.relative_to(self.predict_folder).as_posix(), height, width)
            items.append((path, image, Boxes.whole(image)))
        return items


def _list(names: dict[str, CocoCategory]) -> str:
    return ", ".join(names)


@rank_zero_only
def _say(line: str) -> None:
    print(line, file=sys.stderr)
