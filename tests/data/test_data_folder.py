"""Folder: the user's own layouts, label maps and colours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_app.data import Folder
from lightning_app.data.facts import default_palette
from lightning_app.util.errors import InputError

CLASSES = ["grass", "water", "roof"]


def put(root: Path, name: str, mask: np.ndarray | Image.Image, *, suffix: str = ".png", split: str = "train") -> None:
    """One image and its mask in sub-folders."""
    mask = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    for kind, picture, ending in (("images", Image.new("RGB", mask.size), ".jpg"), ("masks", mask, suffix)):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
        picture.save(root / kind / split / f"{name}{ending}")


def read(root: Path, **options: Any) -> np.ndarray:
    module = Folder(root, **({"classes": CLASSES} | options), val_split="train", num_workers=0)
    sample = module.dataset("val")[0]
    if isinstance(sample, InputError):
        raise sample
    return sample["mask"].numpy()


RAW = np.array([[0, 50, 100, 7]], dtype=np.uint8)


def test_label_map(tmp_path: Path) -> None:
    put(tmp_path, "a", RAW)
    assert read(tmp_path, label_map={0: 0, 50: 1, 100: 2, 7: 255}).tolist() == [[0, 1, 2, 255]]
    assert read(tmp_path, label_map={"0": 2, "50": 2, "100": 2, "7": 1}).tolist() == [[2, 2, 2, 1]]


def test_a_value_outside_the_map_names_file_value_and_fix(tmp_path: Path) -> None:
    put(tmp_path, "a", RAW)
    with pytest.raises(InputError, match=r"masks/train/a\.png: Raw value 7: in no class\. Add it to label_map \(255"):
        read(tmp_path, label_map={0: 0, 50: 1, 100: 2})


def test_without_a_map_numbers_are_classes(tmp_path: Path) -> None:
    put(tmp_path, "a", np.array([[0, 1, 2, 255]], dtype=np.uint8))
    assert read(tmp_path).tolist() == [[0, 1, 2, 255]]
    put(tmp_path, "a", np.array([[0, 1, 3]], dtype=np.uint8))
    with pytest.raises(InputError, match="Raw value 3: in no class"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_colours(tmp_path: Path, suffix: str) -> None:
    pixels = np.array([[[0, 255, 0], [0, 0, 255], [255, 0, 0], [1, 2, 3]]], dtype=np.uint8)
    put(tmp_path, "a", pixels, suffix=suffix)
    label_map = {"#00FF00": 0, "0,0,255": 1, "255, 0, 0": 2, "#010203": 255}
    assert read(tmp_path, label_map=label_map).tolist() == [[0, 1, 2, 255]]
    assert Folder(tmp_path, classes=CLASSES, label_map=label_map).palette == [(0, 255, 0), (0, 0, 255), (255, 0, 0)]
    with pytest.raises(InputError, match="Raw value #010203: in no class"):
        read(tmp_path, label_map={"#00ff00": 0, "#0000ff": 1, "#ff0000": 2})


def test_a_palette_png_by_index_and_by_colour(tmp_path: Path) -> None:
    mask = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    mask.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    put(tmp_path, "a", mask)
    assert read(tmp_path).tolist() == [[0, 1, 2]]
    assert read(tmp_path, label_map={"10,20,30": 2, "40,50,60": 1, "70,80,90": 0}).tolist() == [[2, 1, 0]]


def test_sixteen_bit_and_grey_rgb_masks(tmp_path: Path) -> None:
    put(tmp_path, "a", np.array([[0, 1000, 40000]], dtype=np.uint16))
    assert read(tmp_path, label_map={0: 0, 1000: 1, 40000: 2}).tolist() == [[0, 1, 2]]
    put(tmp_path, "a", np.array([[[0] * 3, [1] * 3, [2] * 3]], dtype=np.uint8))
    assert read(tmp_path).tolist() == [[0, 1, 2]]
    put(tmp_path, "a", np.array([[[0, 1, 0]]], dtype=np.uint8))
    with pytest.raises(InputError, match="Colour mask where label_map lists numbers"):
        read(tmp_path)


def test_split_lists(tmp_path: Path) -> None:
    for i in range(4):
        for kind, mode, ending in (("images", "RGB", "jpeg"), ("masks", "L", "png")):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.new(mode, (4, 4)).save(tmp_path / kind / f"photo {i}.{ending}")
    (tmp_path / "train.txt").write_text("photo 0\nphoto 2.jpeg\n\n")
    (tmp_path / "val.txt").write_text("photo 3\n")
    module = Folder(tmp_path, classes=CLASSES, num_workers=0)
    assert [pair.image.name for pair in module.pairs("train")] == ["photo 0.jpeg", "photo 2.jpeg"]
    assert [pair.mask.name for pair in module.pairs("val") if pair.mask] == ["photo 3.png"]
    (tmp_path / "val.txt").write_text("33\n")
    with pytest.raises(InputError, match=r'split "val" have no mask, such as .*/images/33'):
        module.pairs("val")


def test_classes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("grass\n\nwater \n")
    assert Folder(tmp_path).class_names == ["grass", "water"]
    assert Folder(tmp_path).palette == list(default_palette(2))
    (tmp_path / "own.txt").write_text("roof\n")
    assert Folder(tmp_path, classes=tmp_path / "own.txt").class_names == ["roof"]
    (tmp_path / "own.txt").write_text("\n")
    for path, words in ((tmp_path / "own.txt", "is empty"), (tmp_path / "none.txt", "does not exist")):
        with pytest.raises(InputError, match=words):
            Folder(tmp_path, classes=path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_map": {0: 3}}, "label_map 0: 3 is no class: give 0 to 2, or 255 to ignore"),
        ({"label_map": {"#00ff00": 0, 1: 1}}, 'label_map key "1": all keys must be colours'),
        ({"label_map": {"#00ff0": 0}}, 'label_map key "#00ff0": all keys must be colours'),
        ({"label_map": {70000: 0}}, 'label_map key "70000": all keys must be numbers'),
        ({"palette": [(0, 0, 0)]}, "palette has 1 colours for 3 classes"),
        ({"classes": []}, "0 classes: give 1 to 255"),
        ({"scale": (2.0, 0.5)}, "scale 2.0, 0.5: give the smallest and the largest ratio"),
        ({"crop_size": (0, 8)}, "crop_size 0, 8: give height and width"),
    ],
)
def test_a_wrong_description_is_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        Folder(tmp_path, **({"classes": CLASSES} | options))
    assert words in str(error.value)


def unsplit(root: Path, names: list[str]) -> None:
    """images/ and masks/ without splits."""
    for kind, mode in (("images", "RGB"), ("masks", "L")):
        (root / kind).mkdir(exist_ok=True)
        for name in names:
            Image.new(mode, (8, 8)).save(root / kind / f"{name}.png")
    (root / "classes.txt").write_text("grass\n")


def names(root: Path, split: str, **options: Any) -> set[str]:
    return {pair.image.stem for pair in Folder(root, **options).pairs(split)}


def test_without_splits_names_decide_and_go_on_deciding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unsplit(tmp_path, [f"photo {i}" for i in range(50)])
    train, val = names(tmp_path, "train"), names(tmp_path, "val")
    assert not train & val
    assert len(train | val) == 50
    assert 3 <= len(val) <= 18
    line = f"{tmp_path} has no splits: {len(train)} pictures to train and {len(val)} to val, by their names"
    assert capsys.readouterr().err.splitlines()[0] == f"{line} (--data.val_share 0.2)"
    unsplit(tmp_path, [f"new {i}" for i in range(30)])
    assert train < names(tmp_path, "train")
    assert val < names(tmp_path, "val")
    assert len(names(tmp_path, "val", val_share=0.5)) > len(names(tmp_path, "val"))


@pytest.mark.parametrize("count", [2, 3])
def test_of_few_pictures_each_side_gets_one(tmp_path: Path, count: int) -> None:
    unsplit(tmp_path, [f"photo {i}" for i in range(count)])
    assert len(names(tmp_path, "train")) >= 1
    assert len(names(tmp_path, "val")) >= 1
    with pytest.raises(InputError, match=r"data\.val_share is 1: give a share between 0 and 1"):
        Folder(tmp_path, val_share=1)


def test_a_misspelt_split_is_not_taken_for_none(tmp_path: Path) -> None:
    unsplit(tmp_path, ["photo"])
    (tmp_path / "training.txt").write_text("photo\n")
    with pytest.raises(InputError, match=r'has no split "train"\. Did you mean "training"'):
        Folder(tmp_path).pairs("train")
    (tmp_path / "training.txt").rename(tmp_path / "train.txt")
    with pytest.raises(InputError, match=r'has no split "val"\. \(one of train\)'):
        Folder(tmp_path).pairs("val")


def test_a_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name, state in (("nodir", "does not exist"), ("file", "is not a folder")):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=rf"/{name} {state}: the root of the data\. Give the right --data\.root"):
            Folder(tmp_path / name)


def test_a_list_of_classes_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfgrass\r\nwater\r\n")
    assert Folder(tmp_path).class_names == ["grass", "water"]
    (tmp_path / "classes.txt").write_bytes("Straße".encode("latin-1"))
    with pytest.raises(InputError, match=r"classes\.txt is no UTF-8 text"):
        Folder(tmp_path)


# Cross-validation


def folds(root: Path, parts: int, **options: Any) -> list[tuple[set[str], set[str]]]:
    """What each part trains on and validates on."""
    modules = [Folder(root, classes=CLASSES, fold=(part, parts), num_workers=0, **options) for part in range(parts)]
    return [
        (
            {pair.image.stem for pair in module.pairs("train")},
            {pair.image.stem for pair in module.pairs("val")},
        )
        for module in modules
    ]


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_each_image_is_validated_in_one_part_and_trained_on_in_the_others(tmp_path: Path, parts: int) -> None:
    for number in range(7):
        put(tmp_path, f"{number}", RAW * 0, split="val" if number % 3 else "train")
    found = folds(tmp_path, parts)
    everything = {str(number) for number in range(7)}
    assert sorted(name for _, val in found for name in val) == sorted(everything)
    assert all(train == everything - val for train, val in found)
    assert max(len(val) for _, val in found) - min(len(val) for _, val in found) <= 1


def test_parts_that_cannot_be(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val")):
        put(tmp_path, f"{number}", RAW * 0, split=split)
    with pytest.raises(InputError, match="2 images are too few for so many parts"):
        folds(tmp_path, 3)
    with pytest.raises(InputError, match=r"data\.fold 3, 3: give a part from 0 to n - 1, and n"):
        Folder(tmp_path, classes=CLASSES, fold=(3, 3))
