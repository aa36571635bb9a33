"""COCO-Stuff: COCO's images labelled all over, 80 kinds of things and 91 of stuff."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lightning_app.data.facts import DatasetFacts, names, voc_palette
from lightning_app.data.listing import files, require
from lightning_app.data.semantic.pairs import FileDataModule, listed_files

# category ids run from 1 to 182; COCO never released these things
UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
USED = [category for category in range(1, 183) if category not in UNUSED]

FACTS = DatasetFacts(
    name="COCOStuff",
    classes=names(
        """
        person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop
        sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack,
        umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball
        glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana,
        apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed,
        dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink,
        refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush, banner, blanket, branch,
        bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile, cloth,
        clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble,
        floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other,
        grass, gravel, ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud,
        napkin, net, paper, pavement, pillow, plant-other, plastic, platform, playingfield, railing, railroad,
        river, road, rock, roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs,
        stone, straw, structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick,
        wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops,
        window-blind, window-other, wood
        """
    ),
    palette=voc_palette(172)[1:],  # the labels come without one
    label_map={**{category - 1: train for train, category in enumerate(USED)}, 255: 255},  # 255 = unlabelled
    splits={"train": 118287, "val": 5000},
    url="https://github.com/nightrome/cocostuff",
    terms="annotations CC BY 4.0, images under Flickr's terms of use",
)
FACTS_10K = replace(
    FACTS,
    label_map={0: 255, **{category: train for train, category in enumerate(USED)}},  # 0 = unlabelled
    splits={"train": 9000, "test": 1000},
    val_split="test",
    test_split="test",
    url="https://github.com/nightrome/cocostuff10k",
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
