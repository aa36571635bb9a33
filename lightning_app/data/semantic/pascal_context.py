"""PASCAL-Context: the images of VOC 2010 labelled all over, 59 classes or 60 with background."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lightning_app.data.facts import DatasetFacts, names, voc_palette
from lightning_app.data.semantic.pairs import FileDataModule, listed_files

FACTS = DatasetFacts(
    name="PascalContext",
    classes=names(
        """
        aeroplane, bag, bed, bedclothes, bench, bicycle, bird, boat, book, bottle, building, bus, cabinet, car,
        cat, ceiling, chair, cloth, computer, cow, cup, curtain, dog, door, fence, floor, flower, food, grass,
        ground, horse, keyboard, light, motorbike, mountain, mouse, person, plate, platform, pottedplant, road,
        rock, sheep, shelves, sidewalk, sign, sky, snow, sofa, table, track, train, tree, truck, tvmonitor,
        wall, water, window, wood
        """
    ),
    palette=voc_palette(60)[1:],
    label_map={0: 255, **{i + 1: i for i in range(59)}},  # 0 = all the rarer classes
    splits={"train": 4996, "val": 5104},
    url="https://cs.stanford.edu/~roozbeh/pascal-context",
    terms="images under Flickr's terms of use, for research",
)
FACTS_60 = replace(
    FACTS,
    classes=("background", *FACTS.classes),
    palette=voc_palette(60),
    label_map={i: i for i in range(60)},
)


class PascalContext(FileDataModule):
    """PASCAL-Context (Mottaghi et al., CVPR 2014), in VOCdevkit's layout.

    The root is VOCdevkit/VOC2010: ``JPEGImages/*.jpg``, ``SegmentationClassContext/*.png`` and the lists
    ``ImageSets/SegmentationContext/{train,val}.txt``. Masks hold 0 for background and 1..59 in alphabetical order of
    the original names, as the Detail API (zhanghang1989/detail-api) gives them.

    Args:
        classes: 59 ignores the background, 60 learns it.
    """

    def __init__(
        self, root: Path = Path("data/VOCdevkit/VOC2010"), *, classes: Literal[59, 60] = 59, **options: Any
    ) -> None:
        super().__init__(FACTS if classes == 59 else FACTS_60, root, **options)

    def listing(self, split: str) -> tuple[Mapping[str, Path], Mapping[str, Path]]:
        return listed_files(
            self,
            f"ImageSets/SegmentationContext/{split}.txt",
            "JPEGImages/{}.jpg",
            "SegmentationClassContext/{}.png",
            split,
        )
