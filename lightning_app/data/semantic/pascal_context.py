"""PASCAL-Context: the images of VOC 2010 labelled all over, 59 classes or 60 with background."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning_app.data.facts import of_zoo
from lightning_app.data.semantic.pairs import FileDataModule, listed_files

FACTS = of_zoo(
    "pascal-context-59",
    label_map={0: 255, **{i + 1: i for i in range(59)}},  # 0 = all the rarer classes
    splits={"train": 4996, "val": 5104},
)
FACTS_60 = of_zoo("pascal-context", {i: i for i in range(60)}, splits=FACTS.splits)


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
