"""Keypoints in COCO's JSON: facts, boxes, crops and their augmentation."""

import json
import re
from pathlib import Path

import pytest
import torch
from pose_fakes import NAMES, changed, fake_keypoints

from lightning_app.data import COCOKeypoints
from lightning_app.data.pose.affine import transform, warps
from lightning_app.data.pose.augment import Augmentation, training_map
from lightning_app.data.pose.base import PoseBatch
from lightning_app.data.pose.facts import Keypoints
from lightning_app.util.errors import InputError

STILL = Augmentation(flip=0, half_body=0, shift_share=0, scale=(1, 1), rotation_share=0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fake_keypoints(tmp_path / "animals")


def batch_of(data: COCOKeypoints, stage: str = "val") -> PoseBatch:
    loader = {"train": data.train_dataloader, "val": data.val_dataloader}[stage]()
    return next(iter(loader))


def test_facts_are_those_of_the_file(root: Path) -> None:
    data = COCOKeypoints(root, num_workers=0)
    assert (data.class_names, data.keypoint_names) == (["animal"], NAMES)
    assert data.skeleton == [(0, 1), (0, 2), (0, 3)]
    assert (data.flip_pairs, data.sigmas) == ([(1, 2)], [0.05, 0.05, 0.05, 0.1])
    assert data.facts.flip_indices == [0, 2, 1, 3]


def test_what_the_file_does_not_say_is_said_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = COCOKeypoints(fake_keypoints(tmp_path / "a", info={}), num_workers=0)
    assert (data.flip_pairs, data.sigmas) == ([(1, 2)], [0.05] * 4)
    said = capsys.readouterr().err
    assert "has no sigmas: 0.05 for every keypoint" in said
    assert "has no flip_pairs: by the names left_ear and right_ear" in said
    COCOKeypoints(fake_keypoints(tmp_path / "b"), num_workers=0)
    assert not capsys.readouterr().err


def test_people_have_the_sigmas_of_coco(tmp_path: Path) -> None:
    root = fake_keypoints(tmp_path / "a", info={}, train=1)
    parts = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    names = ["nose", *(f"{side}_{part}" for part in parts for side in ("left", "right"))]

    def people(content: dict) -> None:
        content["categories"][0] |= {"name": "person", "keypoints": names}
        for each in content["annotations"]:
            each["keypoints"] = each["keypoints"][:3] * 17

    changed(root, "train", people)
    data = COCOKeypoints(root, num_workers=0)
    assert data.sigmas[0] == 0.026
    assert data.sigmas[-1] == 0.089
    assert data.flip_pairs == [(left, left + 1) for left in range(1, 17, 2)]
    assert data.facts.upper == tuple(range(11))


@pytest.mark.parametrize(
    ("info", "line"),
    [
        ({"sigmas": [0.1, 0.1]}, "2 sigmas for 4 keypoints"),
        ({"sigmas": [0.1, 0.1, 0.1, 0]}, "sigma 0.0: give numbers above 0"),
        ({"sigmas": "many"}, "sigmas are numbers"),
        ({"flip_pairs": [[1, 4]]}, "flip_pairs [1, 4]: keypoints are counted from 0 to 3"),
        ({"flip_pairs": [[1, 2], [2, 3]]}, "flip_pairs: right_ear is in two pairs"),
        ({"flip_pairs": [[1, 2, 3]]}, "pairs of whole numbers"),
        ({"upper": [9]}, "upper [9]"),
    ],
)
def test_facts_that_cannot_be_are_one_line(tmp_path: Path, info: dict, line: str) -> None:
    root = fake_keypoints(tmp_path / "a", info=info)
    with pytest.raises(InputError, match=re.escape(line)) as caught:
        COCOKeypoints(root)
    assert "train.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_crop_shows_its_box_with_the_points_where_they_are(root: Path) -> None:
    data = COCOKeypoints(root, num_workers=0, augmentation=STILL, batch_size=2)
    for udp in (False, True):
        data.follow((64, 64), udp=udp)
        batch = batch_of(data, "train")
        assert batch.image.shape == (2, 3, 64, 64)
        for crop, points in zip(batch.image, batch.keypoints, strict=True):
            colours = [crop[:, round(y), round(x)].tolist() for x, y, _ in points.tolist()]
            assert colours == [[250, 60, 60], [60, 250, 60], [60, 60, 250], [250, 250, 60]]


def test_a_mirrored_crop_keeps_left_and_right(root: Path) -> None:
    data = COCOKeypoints(
        root, num_workers=0, augmentation=Augmentation(flip=1, scale=(1, 1), rotation=20), batch_size=6
    )
    data.follow((64, 64), udp=False)
    batch = batch_of(data, "train")
    for crop, points in zip(batch.image, batch.keypoints, strict=True):
        nose, left, right, tail = (crop[:, round(y), round(x)].int() for x, y, _ in points.tolist())
        assert nose[0] > 200
        assert left[2] > 200  # what was the right ear
        assert right[1] > 200
        assert tail[:2].min() > 200


def test_augmentation_hangs_on_seed_epoch_and_index_alone(root: Path) -> None:
    dataset = COCOKeypoints(root).dataset("train")
    first, again, other = dataset[3, 2], dataset[3, 2], dataset[4, 2]
    torch.testing.assert_close(first.image, again.image)
    torch.testing.assert_close(first.keypoints, again.keypoints)
    assert not torch.equal(first.keypoints, other.keypoints)


def test_a_map_moves_pixels_and_points_together() -> None:
    torch.manual_seed(0)
    facts = Keypoints(("a", "b"), (), ((0, 1),), (0.1, 0.1))
    marked = torch.tensor([[30.0, 20, 2], [50, 44, 0]], dtype=torch.float64)
    box = torch.tensor([20.0, 10, 70, 60], dtype=torch.float64)
    scales = []
    for _ in range(200):
        matrix, points = training_map(box, marked, 99, (64, 48), facts, Augmentation(), udp=True)
        mirrored = bool(torch.linalg.det(matrix[:, :2]) < 0)
        torch.testing.assert_close(transform(marked[:, :2], matrix), points[[1, 0] if mirrored else [0, 1], :2])
        assert points[:, 2].tolist() == ([0, 2] if mirrored else [2, 0])
        scales.append(torch.linalg.det(matrix[:, :2]).abs().sqrt().item())
    assert 1.9 < max(scales) / min(scales) <= 3.0 + 1e-9


def test_half_a_body_is_cut_out_where_the_facts_say_which() -> None:
    names = tuple("abcdefghij")
    marked = torch.tensor([[10.0 * place, 10 * place, 2] for place in range(10)], dtype=torch.float64)
    box = torch.tensor([0.0, 0, 90, 90], dtype=torch.float64)
    always = Augmentation(flip=0, half_body=1, shift_share=0, scale=(1, 1), rotation_share=0)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        facts = Keypoints(names, (), (), (0.1,) * 10, upper=(0, 1, 2, 3))
        points = training_map(box, marked, 100, (64, 64), facts, always, udp=False)[1][:, :2]
        inside = ((points >= 0) & (points <= 64)).all(1)
        seen.add(tuple(inside.nonzero().flatten().tolist()))
        whole = Keypoints(names, (), (), (0.1,) * 10)
        points = training_map(box, marked, 100, (64, 64), whole, always, udp=False)[1][:, :2]
        assert bool(((points >= 0) & (points <= 64)).all())
    assert len(seen) == 2
    assert {0, 1, 2, 3} <= set(min(seen))
    assert {4, 5, 6, 7, 8, 9} <= set(max(seen))


def test_evaluation_gives_all_boxes_of_a_photograph(root: Path) -> None:
    def two(content: dict) -> None:
        first = content["annotations"][0]
        content["annotations"].append(first | {"id": 90, "bbox": [0, 0, 9, 9]})
        content["annotations"].append(first | {"id": 91, "iscrowd": 1})
        content["annotations"].append(first | {"id": 92, "keypoints": [0] * 12})
        content["annotations"].append(first | {"id": 93, "bbox": [70, 50, 9, 9]})  # beside the picture
        content["images"].append({"id": 50, "file_name": "train_1.png", "height": 48, "width": 64})

    changed(root, "val", two)
    data = COCOKeypoints(root, num_workers=0, val_batch_size=9)
    batch = batch_of(data)
    assert batch.crops == [2, 1, 1, 1, 0]
    assert [len(each) for each in batch.truth] == [5, 1, 1, 1, 0]
    assert batch.image.shape == (5, 3, 256, 192)
    assert len(batch[4:].image) == 0
    one, *_ = batch.singles()
    assert (one.names, one.crops, len(one.image), len(one.boxes)) == (batch.names[:1], [2], 2, 2)
    assert one.boxes[1].tolist() == [0, 0, 9, 9]


def test_boxes_of_a_detector_are_taken_as_they_are(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        {"image_id": 7, "category_id": 3, "bbox": [-2, 3, 20, 30], "score": 0.9},
        {"image_id": 7, "category_id": 3, "bbox": [1, 1, 5, 5], "score": 0.4},
        {"image_id": 7, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.4},
        {"image_id": 7, "category_id": 3, "bbox": [1, 1, 0, 5], "score": 0.4},
        {"image_id": 99, "category_id": 3, "bbox": [1, 1, 5, 5], "score": 0.4},
    ]
    (root / "boxes.json").write_text(json.dumps(found))
    data = COCOKeypoints(root, boxes=Path("boxes.json"), num_workers=0)
    assert data.box_source == "the boxes of boxes.json"
    batch = batch_of(data)
    assert batch.crops == [2, 0, 0, 0]
    assert batch.boxes.tolist() == [[-2, 3, 18, 33], [1, 1, 6, 6]]
    assert batch.box_scores.tolist() == pytest.approx([0.9, 0.4])
    assert "1 boxes are in no image of val.json" in capsys.readouterr().err


def test_whole_pictures_need_no_boxes(root: Path) -> None:
    def without_boxes(content: dict) -> None:
        for each in content["annotations"]:
            del each["bbox"], each["area"]

    for split in ("train", "val"):
        changed(root, split, without_boxes)
    data = COCOKeypoints(root, boxes="whole", num_workers=0, batch_size=2)
    assert batch_of(data).boxes.tolist() == [[0, 0, 64, 48]] * 4
    batch = batch_of(data, "train")
    assert batch.boxes.tolist() == [[0, 0, 64, 48]] * 2
    assert batch_of(data).truth[0][0].area == pytest.approx(0.53 * 64 * 48)
    changed(root, "train", lambda content: content["annotations"].append(content["annotations"][0] | {"id": 77}))
    with pytest.raises(InputError, match="has 2 animals: whole pictures show one"):
        COCOKeypoints(root, boxes="whole").dataset("train")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({}, "No list of detections"),
        ([{"bbox": [1, 2, 3, 4]}], "without a whole number as its image_id (entry 0 of the list)"),
        ([{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3]}], "A bbox that is not four numbers (entry 0"),
        ([{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "score": "high"}], "A score that is no number"),
        ([{"image_id": 99, "category_id": 3, "bbox": [1, 2, 3, 4]}], "has no box in an image of"),
        ([], "has no box in an image of"),
    ],
)
def test_detections_that_cannot_be_used_are_one_line(root: Path, content: object, line: str) -> None:
    (root / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=re.escape(line)) as caught:
        COCOKeypoints(root, boxes=Path("boxes.json")).dataset("val")
    assert "boxes.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_official_layout_is_known(tmp_path: Path) -> None:
    root = fake_keypoints(tmp_path / "coco")
    for split in ("train", "val"):
        (root / "annotations" / f"{split}.json").rename(root / "annotations" / f"person_keypoints_{split}2017.json")
    (root / "images").rename(root / "val2017")
    (root / "train2017").mkdir()
    for path in (root / "val2017").glob("train_*"):
        path.rename(root / "train2017" / path.name)
    data = COCOKeypoints(root, num_workers=0, batch_size=2)
    assert len(batch_of(data)) == 4
    assert batch_of(data, "train").names[0].startswith("train2017/")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"root": "nowhere"}, "nowhere does not exist: the root of the data"),
        ({"category": "animol"}, 'has no keypoints of "animol". Did you mean "animal"?'),
        ({"images": "pictures"}, "No such file"),
        ({"boxes": "bxes.json"}, "bxes.json"),
        ({"val_split": "vall"}, 'the annotations of vall. Did you mean "val"? (it has train, val)'),
    ],
)
def test_wrong_names_are_one_line(root: Path, options: dict, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    with pytest.raises(InputError, match=re.escape(line)):
        batch_of(COCOKeypoints(**{"root": root, **options}, num_workers=0))


def test_a_picture_of_another_size_is_one_line(root: Path) -> None:
    changed(root, "val", lambda content: content["images"][1].update(width=65))
    with pytest.raises(InputError, match="Another size than its annotations say \\(64x48 vs 65x48\\)"):
        batch_of(COCOKeypoints(root, num_workers=0))


def test_a_folder_is_predicted_as_whole_pictures(root: Path) -> None:
    data = COCOKeypoints(root, predict_folder=root / "images", num_workers=0)
    (root / "images" / "a_bad.png").write_bytes(b"no picture")
    batches = list(data.predict_dataloader())
    assert sum(len(batch) for batch in batches) == 10
    assert data.faults[0].startswith(str(root / "images" / "a_bad.png"))
    assert all(batch.truth is None for batch in batches)


@pytest.mark.parametrize("udp", [False, True])
def test_mixed_precision_moves_no_crop_and_no_point(udp: bool) -> None:
    centre, scale = torch.tensor([[301.3, 197.7]]), torch.tensor([[413.0, 309.0]])
    points = torch.tensor([[[11.1, 380.9], [395.3, 2.2]]])
    warp = warps(centre, scale, (256, 192), udp=udp, rotation=torch.tensor([17.0]))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = warps(centre, scale, (256, 192), udp=udp, rotation=torch.tensor([17.0]))
        moved = transform(points, warp)
    assert torch.equal(mixed, warp)
    assert torch.equal(moved, transform(points, warp))
