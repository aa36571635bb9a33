"""COCOInstances: COCO 2017, or anything annotated in a JSON of that kind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lightning_app.data import coco
from lightning_app.data.coco import CocoFile, Fault
from lightning_app.data.coco_records import CocoCategory
from lightning_app.data.instance.base import InstanceDataModule
from lightning_app.util.errors import InputError

# where tools put the annotations of a split, and its pictures
FILES: Final = (
    "annotations/instances_{}2017.json",
    "annotations/instances_{}.json",
    "annotations/{}.json",
    "{}/_annotations.coco.json",
    "{}.json",
)
FOLDERS: Final = ("{}2017", "{}", "images/{}2017", "images/{}", "images", "")


class COCOInstances(InstanceDataModule):
    """Objects in COCO's JSON: COCO 2017 itself, or your own pictures as CVAT, Label Studio or Roboflow export them.

    A split is ``annotations/instances_SPLIT.json`` under the root (with 2017 behind SPLIT as well; or
    ``annotations/SPLIT.json``, ``SPLIT/_annotations.coco.json``, ``SPLIT.json``), or the path of a JSON file below the
    root. Its pictures lie in ``SPLIT/``, ``SPLIT2017/``, ``images/`` or beside the file.

    Args:
        root: the folder that holds annotations and pictures.
        classes: names of the classes to take; none = all of the file.
        images: the folder of the pictures, where it is none of the usual ones.
    """

    def __init__(
        self,
        root: Path = Path("data/coco"),
        *,
        classes: list[str] | None = None,
        images: Path | None = None,
        **options: Any,
    ) -> None:
        self.classes = classes
        self.images = Path(images).expanduser() if images else None
        super().__init__(root, **options)

    def path(self, split: str) -> Path:
        """The JSON of a split.

        Raises:
            InputError: there is none.
        """
        if not self.root.is_dir():
            state = "is not a folder" if self.root.exists() else "does not exist"
            raise InputError(f"{self.root} {state}: the root of the data. Give the right --data.root.")
        if split.endswith(".json"):
            return self.root / split
        places = [self.root / place.format(split) for place in FILES]
        found = next((path for path in places if path.exists()), None)
        if found is None:
            known = sorted({path.relative_to(self.root).as_posix() for path in self.root.glob("**/*.json")})[:5]
            has = f" (it has {', '.join(known)})" if known else ""
            raise InputError(f"{self.root} has no {places[1].relative_to(self.root)}: the split {split}.{has}")
        return found

    def find_categories(self) -> Sequence[CocoCategory]:
        """Of the first split that is there: to evaluate one, nobody needs the others; to predict, names are enough."""
        splits = list(dict.fromkeys(self.splits.values()))
        there = [split for split in splits if self._is_there(split)]
        if self.predict_folder and self.classes and not there:
            return [CocoCategory(number, name) for number, name in enumerate(self.classes, 1)]
        split = (there or splits)[0]
        self._files[split] = self.parse(split)
        return self._files[split].categories

    def _is_there(self, split: str) -> bool:
        try:
            return self.path(split).exists()
        except InputError:
            return False

    def parse(self, split: str, fault: Fault | None = None) -> CocoFile:
        path = self.path(split)
        file = coco.parse(path, fault) if fault else coco.read(path)
        return file if self.classes is None else file.with_classes(self.classes)

    def folder(self, split: str) -> Path:
        if self.images is not None:
            return self.root / self.images
        file = self._files.get(split) or self.parse(split, lambda problem, where: None)
        places = [self.root / place.format(split) for place in FOLDERS] + [file.path.parent]
        for image in file.images[:100]:  # some of them may be missing
            for place in places:
                if (place / image.file_name).is_file():
                    return place
        tried = ", ".join(dict.fromkeys(f"{place}/" for place in places if place.is_dir()))
        name = file.images[0].file_name if file.images else "nothing"
        raise InputError(f"{file.path} lists {name}, which is not in {tried}: give --data.images")
