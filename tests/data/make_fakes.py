"""Tiny datasets in their true layouts on disk: ``python tests/data/make_fakes.py FOLDER``.

Every mask starts with the raw values of ``FIRST_ROW`` in its first row; all else is noise from those. Deterministic.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 32
FIRST_ROW = {  # raw values: the first and last class, one in between, and what is ignored
    "camvid": (0, 5, 10, 11),
    "cityscapes": (7, 13, 33, 0, 18),
    "ade20k": (1, 75, 150, 0),
    "pascal_voc": (0, 7, 20, 255),
    "pascal_context": (1, 30, 59, 0),
    "coco_stuff_164k": (0, 12, 181, 255),
    "coco_stuff_10k": (1, 13, 182, 0),
    "folder": (0, 1, 2, 255),
}


def _image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(path)


def labels(values: Sequence[int], seed: int) -> np.ndarray:
    """A mask of raw values, those given leading its first row."""
    mask = np.random.default_rng(seed).choice(values, size=(HEIGHT, WIDTH)).astype(np.uint8)
    mask[0, : len(values)] = values
    return mask


def _mask(path: Path, values: Sequence[int], seed: int, *, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels(values, seed))
    if palette:
        image.putpalette([(37 * i) % 256 for i in range(768)])
    image.save(path)


def _list(path: Path, names: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def camvid(root: Path) -> None:
    for split, count in {"train": 5, "val": 3}.items():  # no test, as in many copies
        for i in range(count):
            _image(root / split / f"0001TP_{i:06d}.png", i + 100 * (split == "val"))
            _mask(root / f"{split}annot" / f"0001TP_{i:06d}.png", FIRST_ROW["camvid"], i)


def cityscapes(root: Path) -> None:
    for split, cities in {"train": ("aachen", "ulm"), "val": ("lindau",), "test": ("bonn",)}.items():
        for city in cities:
            for i in range(2):
                name = f"{city}_{i:06d}_000019"
                _image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", i + 100 * ord(city[0]))
                fine = root / "gtFine" / split / city
                values = (1, 2, 3) if split == "test" else FIRST_ROW["cityscapes"]
                _mask(fine / f"{name}_gtFine_labelIds.png", values, i)
                _mask(fine / f"{name}_gtFine_color.png", (0, 1), i, palette=True)
                _mask(fine / f"{name}_gtFine_instanceIds.png", (0, 1), i)
                (fine / f"{name}_gtFine_polygons.json").write_text("{}")


def ade20k(root: Path) -> None:
    for split, letter, count in (("training", "train", 4), ("validation", "val", 2)):
        for i in range(count):
            name = f"ADE_{letter}_{i + 1:08d}"
            _image(root / "images" / split / f"{name}.jpg", i + 100 * (letter == "val"))
            _mask(root / "annotations" / split / f"{name}.png", FIRST_ROW["ade20k"], i)
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n")


def pascal_voc(root: Path) -> None:
    names = [f"2007_{i:06d}" for i in range(8)]  # the last one is in no list
    for i, name in enumerate(names):
        _image(root / "JPEGImages" / f"{name}.jpg", i)
        if i < 5:
            _mask(root / "SegmentationClass" / f"{name}.png", FIRST_ROW["pascal_voc"], i, palette=True)
            _mask(root / "SegmentationObject" / f"{name}.png", (0, 1, 2), i, palette=True)
        _mask(root / "SegmentationClassAug" / f"{name}.png", FIRST_ROW["pascal_voc"], i)
    lists = root / "ImageSets" / "Segmentation"
    _list(lists / "train.txt", names[:3])
    _list(lists / "val.txt", names[3:5])
    _list(lists / "trainval.txt", names[:5])
    augmented = [*names[:3], *names[5:7]]
    _list(lists / "trainaug.txt", [f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png" for n in augmented])


def pascal_context(root: Path) -> None:
    names = [f"2008_{i:06d}" for i in range(5)]
    for i, name in enumerate(names):
        _image(root / "JPEGImages" / f"{name}.jpg", i)
        _mask(root / "SegmentationClassContext" / f"{name}.png", FIRST_ROW["pascal_context"], i)
    lists = root / "ImageSets" / "SegmentationContext"
    _list(lists / "train.txt", names[:3])
    _list(lists / "val.txt", names[3:])


def coco_stuff_164k(root: Path) -> None:
    for split, count in {"train2017": 4, "val2017": 2}.items():
        for i in range(count):
            _image(root / "images" / split / f"{i + 1:012d}.jpg", i + 100 * (split == "val2017"))
            _mask(root / "annotations" / split / f"{i + 1:012d}.png", FIRST_ROW["coco_stuff_164k"], i)


def coco_stuff_10k(root: Path) -> None:
    from scipy.io import savemat

    names = [f"COCO_train2014_{i + 1:012d}" for i in range(5)]
    for i, name in enumerate(names):
        _image(root / "images" / f"{name}.jpg", i)
        (root / "annotations").mkdir(exist_ok=True)
        mask = labels(FIRST_ROW["coco_stuff_10k"], i).astype(np.uint16)
        savemat(root / "annotations" / f"{name}.mat", {"S": mask, "names": ["unlabeled"]}, do_compression=True)
    _list(root / "imageLists" / "train.txt", names[:3])
    _list(root / "imageLists" / "test.txt", names[3:])


def folder(root: Path) -> None:
    for split, count in {"train": 4, "val": 2}.items():
        for i in range(count):
            _image(root / "images" / split / f"photo {i}.jpeg", i + 100 * (split == "val"))
            _mask(root / "masks" / split / f"photo {i}.png", FIRST_ROW["folder"], i)
    (root / "classes.txt").write_text("grass\nwater\nroof\n")


FAKES = {
    make.__name__: make
    for make in (camvid, cityscapes, ade20k, pascal_voc, pascal_context, coco_stuff_164k, coco_stuff_10k, folder)
}


if __name__ == "__main__":
    for name, make in FAKES.items():
        make(Path(sys.argv[1]) / name)
