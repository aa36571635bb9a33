"""COCO-Stuff: COCO's images labelled all over, 80 kinds of things and 91 of stuff."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning_app.data.facts import of_zoo
from lightning_app.data.listing import files, require
from lightning_app.data.semantic.pairs import FileDataModule, listed_files

# category ids run from 1 to 182; COCO never released these things
UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
USED = [category for category in range(1, 183) if category not in UNUSED]

FACTS = of_zoo(
    "coco-stuff164k",
    label_map={**{category - 1: train for train, category in enumerate(USED)}, 255: 255},  # 255 = unlabelled
    splits={"train": 118287, "val": 5000},
)
FACTS_10K = of_zoo(
    "coco-stuff10k",
    label_map={0: 255, **{category: train for train, category in enumerate(USED)}},  # 0 = unlabelled
    splits={"train": 9000, "test": 1000},
    val_split="test",
    test_split="test",
)


class COCOStuff(FileDataModule):
    """COCO-Stuff (Caesar et al., CVPR 2018), 171 classes.

    164k: ``images/{train,val}2017/*.jpg`` and the pixel maps ``annotations/{train,val}2017/*.png``.
    10k (release 1.1): ``images/*.jpg``, ``annotations/*.mat`` and ``imageLists/{train,test}.txt``; needs scipy.

    Args:
        version: 164k or 10k.
    """

    def __init__(
        self, root: Path = Path("data/coco_stuff"), *, version: Literal["164k", "10k"] = "164k", **options: Any
    ) -> None:
        super().__init__(FACTS if version == "164k" else FACTS_10K, root, **options)
        self.version = version

    def listing(self, split: str) -> tuple[Mapping[str, Path], Mapping[str, Path]]:
        if self.version == "10k":
            return listed_files(self, f"imageLists/{split}.txt", "images/{}.jpg", "annotations/{}.mat", split)
        if split not in self.facts.splits:
            raise self.unknown_split(split, list(self.facts.splits))
        images, masks = (self.root / kind / f"{split}2017" for kind in ("images", "annotations"))
        return files(require(images, FACTS, "images")), files(require(masks, FACTS, "masks"))
