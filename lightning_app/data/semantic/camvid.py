"""CamVid: road scenes from a driving car, 11 classes, as prepared for SegNet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_app.data.facts import of_zoo
from lightning_app.data.listing import files, require
from lightning_app.data.semantic.pairs import FileDataModule
from lightning_app.util.errors import InputError

FACTS = of_zoo(
    "camvid",
    label_map={**{i: i for i in range(11)}, 11: 255},  # 11 = void
    splits={"train": 367, "val": 101, "test": 233},
    test_split="test",
)


class CamVid(FileDataModule):
    """CamVid (Brostow et al., 2009), 480x360, 11 classes, in SegNet's layout.

    ``{train,val,test}/*.png`` and ``{train,val,test}annot/*.png``; test may be absent (``--data.test_split val``).
    """

    def __init__(self, root: Path = Path("data/camvid"), **options: Any) -> None:
        super().__init__(FACTS, root, **options)

    def listing(self, split: str) -> tuple[Mapping[str, Path], Mapping[str, Path]]:
        if split not in self.facts.splits:
            raise self.unknown_split(split, list(self.facts.splits))
        require(self.root, self.facts, "the root of CamVid")
        images = self.root / split
        if split == "test" and not images.exists():
            raise InputError(f"{images} does not exist: CamVid's test images. Test on val with --data.test_split val.")
        return files(require(images, self.facts, "images")), files(
            require(self.root / f"{split}annot", self.facts, "masks")
        )
