"""``contextzoo data check`` and ``data stats`` for keypoints: every fault planted is named."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run
from pose_fakes import changed, fake_keypoints


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fake_keypoints(tmp_path / "animals")


def check(root: Path, more: str = "") -> int:
    return run(f"data check --data COCOKeypoints --data.root {root} {more}")


def first(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    """A change of the first annotation."""
    return lambda content: change(content["annotations"][0])


def test_sound_data_are_said_to_be(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(root) == 0
    out = capsys.readouterr().out
    assert "train: 6 images, 6 with keypoints in a box. All usable." in out
    assert "val: 4 images, 4 with keypoints in a box. All usable." in out


@pytest.mark.parametrize(
    ("change", "line", "fatal"),
    [
        (first(lambda each: each.update(area=0)), "Area 0: annotation 7 in val_7.png", True),
        (first(lambda each: each.update(area=90_000)), "An area larger than the box", False),
        (first(lambda each: each.update(bbox=[3, 3, 0, 9])), "A box without a side", False),
        (first(lambda each: each.update(bbox=[0, 0, 4, 4])), "Keypoints outside the box", False),
        (first(lambda each: each["keypoints"].__setitem__(0, 300)), "Keypoints outside the picture", True),
        (first(lambda each: each["keypoints"].__setitem__(slice(0, 2), [0, 0])), "Labelled at 0, 0", True),
        (first(lambda each: each["keypoints"].__setitem__(2, 0)), "A place that is said not to be labelled", False),
        (first(lambda each: each["keypoints"].__setitem__(2, 3)), "v is none of 0, 1, 2", True),
        (first(lambda each: each["keypoints"].pop()), "Keypoints that are not 4 times x, y, v", True),
        (lambda content: content["images"][0].update(width=65), "Another size than its annotations say", True),
        (lambda content: content["images"][0].update(file_name="gone.png"), "No such file", True),
        (lambda content: content["annotations"].clear(), "Nothing with a labelled keypoint in a box", True),
    ],
)
def test_what_is_wrong_is_named(
    root: Path, change: Any, line: str, fatal: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(root, "val", change)
    assert check(root, "--data.images images") == int(fatal)
    out = capsys.readouterr().out
    said = next(each for each in out.splitlines() if line in each)
    assert said.strip().startswith("fatal" if fatal else "harmless")


def test_pairs_that_do_not_pair_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sigmas = {"sigmas": [0.1] * 4}
    assert check(fake_keypoints(tmp_path / "a", info=sigmas | {"flip_pairs": [[0, 2]]})) == 1
    assert "Flip pairs that their names do not pair: nose and right_ear" in capsys.readouterr().out
    assert check(fake_keypoints(tmp_path / "b", info=sigmas | {"flip_pairs": [[0, 3]]})) == 1
    assert "Left and right without a pair: left_ear and right_ear" in capsys.readouterr().out
    assert check(fake_keypoints(tmp_path / "c", info=sigmas | {"flip_pairs": []})) == 0  # nothing is mirrored
    assert check(fake_keypoints(tmp_path / "d", info={"sigmas": [0.1]})) == 2
    assert "1 sigmas for 4 keypoints: give one for each" in capsys.readouterr().err


def test_one_photo_in_two_splits_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(root / "images/train_1.png", root / "images/val_8.png")
    assert check(root) == 1
    assert "The same photo: train_1.png = val_8.png" in capsys.readouterr().out


def test_statistics_are_of_the_training_split(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def hidden(content: dict[str, Any]) -> None:
        for each in content["annotations"][:3]:
            each["keypoints"][5] = 1
        content["annotations"][0]["keypoints"][:3] = [0, 0, 0]

    changed(root, "train", hidden)
    assert run(f"data stats --data COCOKeypoints --data.root {root}") == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["keypoint", "labelled %", "hidden %", "sigma", "mirrored"]
    assert rows[1] == ["nose", "83.3", "0.0", "0.05", ""]
    assert rows[2] == ["left_ear", "100.0", "50.0", "0.05", "right_ear"]
    assert any("6 animal with keypoints in 6 images" in row[0] for row in rows)
