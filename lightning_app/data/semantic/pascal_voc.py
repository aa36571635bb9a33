"""PASCAL VOC 2012: 20 kinds of things and background, with the extra labels of SBD."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_app.data.facts import of_zoo
from lightning_app.data.semantic.pairs import FileDataModule, listed_files

FACTS = of_zoo(
    "voc12aug",
    label_map={**{i: i for i in range(21)}, 255: 255},  # 255 = void, the outlines
    splits={"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582},
)


class PascalVOC(FileDataModule):
    """PASCAL VOC 2012 segmentation (Everingham et al.), 21 classes with background, in VOCdevkit's layout.

    The root is VOCdevkit/VOC2012: ``JPEGImages/*.jpg``, ``SegmentationClass/*.png`` and the lists
    ``ImageSets/Segmentation/{train,val,trainval}.txt``. ``--data.train_split trainaug`` takes the 10 582 images of the
    list ``trainaug.txt`` there, with the labels of VOC and SBD (Hariharan et al., ICCV 2011) as
    ``SegmentationClassAug/*.png``.
    """

    def __init__(self, root: Path = Path("data/VOCdevkit/VOC2012"), **options: Any) -> None:
        super().__init__(FACTS, root, **options)

    def listing(self, split: str) -> tuple[Mapping[str, Path], Mapping[str, Path]]:
        masks = "SegmentationClassAug" if split == "trainaug" else "SegmentationClass"
        return listed_files(
            self, f"ImageSets/Segmentation/{split}.txt", "JPEGImages/{}.jpg", f"{masks}/{{}}.png", split
        )
