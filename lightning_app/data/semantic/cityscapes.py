"""Cityscapes: streets of 50 cities, 2048x1024, 19 classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_app.data.facts import of_zoo
from lightning_app.data.listing import files, require
from lightning_app.data.semantic.pairs import FileDataModule

EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

FACTS = of_zoo(
    "cityscapes",
    label_map={**dict.fromkeys(range(34), 255), **{label: train for train, label in enumerate(EVALUATED)}},
    splits={"train": 2975, "val": 500, "test": 1525},
)


class Cityscapes(FileDataModule):
    """Cityscapes (Cordts et al., CVPR 2016), fine labels, 19 of the 34 raw ones.

    ``leftImg8bit/{train,val,test}/<city>/*_leftImg8bit.png`` and
    ``gtFine/{train,val,test}/<city>/*_gtFine_labelIds.png``. The public labels of test are blank: use its images for
    prediction only.
    """

    def __init__(self, root: Path = Path("data/cityscapes"), **options: Any) -> None:
        super().__init__(FACTS, root, **options)

    def listing(self, split: str) -> tuple[Mapping[str, Path], Mapping[str, Path]]:
        if split not in self.facts.splits:
            raise self.unknown_split(split, list(self.facts.splits))
        images = require(self.root / "leftImg8bit" / split, FACTS, "images")
        masks = require(self.root / "gtFine" / split, FACTS, "masks")
        return files(images, ending="_leftImg8bit"), files(masks, ending="_gtFine_labelIds")
