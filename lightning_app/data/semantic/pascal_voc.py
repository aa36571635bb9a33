"""PASCAL VOC 2012: 20 kinds of things and background, with the extra labels of SBD."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_app.data.facts import DatasetFacts, names, voc_palette
from lightning_app.data.semantic.pairs import FileDataModule, listed_files

FACTS = DatasetFacts(
    name="PascalVOC",
    classes=names(
        """
        background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
        motorbike, person, pottedplant, sheep, sofa, train, tvmonitor
        """
    ),
    palette=voc_palette(21),
    label_map={**{i: i for i in range(21)}, 255: 255},  # 255 = void, the outlines
    splits={"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582},
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012",
    terms="images under Flickr's terms of use, for research",
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
