"""FolderInstances: the user's own images, and masks with one number for each object."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from lightning_app.data.bad_file import BadFile
from lightning_app.data.coco import CocoFile, Fault
from lightning_app.data.coco_records import CocoAnnotation, CocoCategory, CocoImage
from lightning_app.data.images import read_header
from lightning_app.data.instance.base import InstanceDataModule
from lightning_app.data.masks import LOSSY, PNG, MaskReader
from lightning_app.data.rle import RLE, area, box, encode
from lightning_app.data.semantic.folder import Folder
from lightning_app.util.errors import InputError

PER_CLASS: Final = 1000  # numbers that each of several classes has for its objects


class FolderInstances(InstanceDataModule):
    """Your own data: ``images/`` and ``masks/``, whose files pair by name; a mask's pixels say which object they are.

    0 is the background and each other number one object: 1, 2, 3, ... With several classes the objects of the first are
    1001, 1002, ..., those of the second 2001, 2002, ..., and so on, in PNGs of 16 bits. Splits are as ``Folder`` has
    them: sub-folders, lists of names, or a share of the pictures for validation.

    Args:
        root: the folder that holds images/ and masks/.
        classes: their names.
        val_share: of the pictures that are for validation where there are no splits.
    """

    def __init__(
        self,
        root: Path = Path("data"),
        *,
        classes: list[str] = ["object"],  # noqa: B006  # never changed; jsonargparse shows it
        val_share: float = 0.2,
        **options: Any,
    ) -> None:
        if not classes:
            raise InputError("data.classes is empty: name what the objects are")
        self.classes = classes
        self._pairs = Folder(root, classes=classes, val_share=val_share)
        self._raw = MaskReader({0: 0}).raw
        super().__init__(root, **options)

    def find_categories(self) -> Sequence[CocoCategory]:
        return [CocoCategory(number, name) for number, name in enumerate(self.classes, 1)]

    def parse(self, split: str, fault: Fault | None = None) -> CocoFile:
        """The objects of all masks of a split; of one that cannot be used ``fault`` is told."""
        pairs = self._pairs.pairs(split)
        with ThreadPoolExecutor() as pool:
            masks = list(pool.map(partial(self._objects, fault=fault), (pair.mask for pair in pairs)))
        images, annotations, count = [], {}, 0
        for number, (pair, (size, objects)) in enumerate(zip(pairs, masks, strict=True), 1):
            name = pair.image.relative_to(self.folder(split)).as_posix()
            images.append(CocoImage(number, name, *size))
            found = []
            for label, mask in objects:
                count += 1
                x, y, width, height = box(mask)
                found.append(CocoAnnotation(count, number, label, (x, y, width, height), area(mask), False, mask))
            annotations[number] = tuple(found)
        return CocoFile(self.root / "masks", self.categories, tuple(images), annotations)

    def folder(self, split: str) -> Path:
        return self.root / "images"

    def _objects(self, path: Path | None, fault: Fault | None) -> tuple[tuple[int, int], list[tuple[int, RLE]]]:
        """Height and width of a mask; class number and RLE of each object."""
        assert path is not None
        try:
            return self._read_objects(path)
        except BadFile as error:
            if fault is None:
                raise
            fault("; ".join(error.problems), f"{path.name} ({error.detail or error.fix})")
            return (1, 1), []

    def _read_objects(self, path: Path) -> tuple[tuple[int, int], list[tuple[int, RLE]]]:
        values = self._raw(path)
        if read_header(path).lossy:
            raise BadFile(path, (LOSSY,), PNG)
        numbers = np.unique(values[values > 0])
        objects = []
        for value in numbers.tolist():
            label = 1 if len(self.classes) == 1 else value // PER_CLASS
            if not 1 <= label <= len(self.classes):
                most = PER_CLASS * (len(self.classes) + 1) - 1
                fix = f"With {len(self.classes)} classes the numbers of objects go from {PER_CLASS} to {most}."
                raise BadFile(path, (f"Number {value}: of no class",), fix)
            objects.append((label, encode(values == value)))
        return (values.shape[0], values.shape[1]), objects
