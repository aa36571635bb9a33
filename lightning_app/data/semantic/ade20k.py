"""ADE20K: scenes of all kinds, 150 classes, as prepared for the MIT scene parsing challenge of 2016."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_app.data.facts import of_zoo
from lightning_app.data.listing import files, require
from lightning_app.data.semantic.pairs import FileDataModule

FACTS = of_zoo(
    "ade20k",
    label_map={0: 255, **{i + 1: i for i in range(150)}},  # 0 = other
    splits={"train": 20210, "val": 2000},
)
FOLDERS = {"train": "training", "val": "validation"}


class ADE20K(FileDataModule):
    """ADE20K (Zhou et al., CVPR 2017), 150 classes, in the layout of ADEChallengeData2016.

    ``images/{training,validation}/*.jpg`` and ``annotations/{training,validation}/*.png``. The challenge's test images
    have no public labels.
    """

    def __init__(self, root: Path = Path("data/ADEChallengeData2016"), **options: Any) -> None:
        super().__init__(FACTS, root, **options)

    def listing(self, split: str) -> tuple[Mapping[str, Path], Mapping[str, Path]]:
        if split not in FOLDERS:
            raise self.unknown_split(split, list(FOLDERS))
        images, masks = (self.root / kind / FOLDERS[split] for kind in ("images", "annotations"))
        return files(require(images, FACTS, "images")), files(require(masks, FACTS, "masks"))
