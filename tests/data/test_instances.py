"""Datamodules of objects: what a training and an evaluation get of a file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from instances import SIZE, coco_json, scene, write_coco, write_masks
from PIL import Image
from torchvision import tv_tensors

from lightning_app.data.instance.coco import COCOInstances
from lightning_app.data.instance.folder import FolderInstances
from lightning_app.data.instance.transforms import RandomWindow, ScaleJitter, visible
from lightning_app.data.rle import decode
from lightning_app.util.errors import InputError

PLAIN: dict[str, Any] = {"image_size": None, "flip": False, "num_workers": 0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco"), crowd=True)


def test_training_gets_objects_without_crowds(root: Path) -> None:
    data = COCOInstances(root, **PLAIN)
    assert data.class_names == ["disc", "square"]
    assert data.category_ids == [3, 7]
    for number, sample in enumerate(data.dataset("train")[0, index] for index in range(8)):
        picture, objects = scene(number)
        objects = objects[:2] if number == 7 else objects  # the last of all is a crowd
        targets = sample["targets"]
        assert (sample["image"].permute(1, 2, 0).numpy() == picture).all()
        assert targets.labels.tolist() == [0 if category == 3 else 1 for category, _ in objects]
        for box, mask, (_, true) in zip(targets.boxes, targets.masks, objects, strict=True):
            assert (mask.numpy() == true).all()
            ys, xs = np.nonzero(true)
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_evaluation_gets_all_that_is_annotated_in_pixels_of_the_file(root: Path) -> None:
    data = COCOInstances(root, val_split="train", **PLAIN)
    data.setup("validate")
    batches = list(data.val_dataloader())
    assert [batch.coco[0].id for batch in batches] == list(range(100, 108))
    assert [len(batch.truth[0]) for batch in batches] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert batches[-1].truth[0][-1].iscrowd
    moved = data.on_after_batch_transfer(batches[1].to("cpu"), 0)
    assert moved.image[0].dtype == torch.float32
    assert 0 <= moved.image[0].min() <= moved.image[0].max() <= 1


def test_a_batch_holds_pictures_of_several_sizes(root: Path) -> None:
    data = COCOInstances(root, scale=(0.5, 1.5), batch_size=4, **PLAIN)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert len({image.shape for image in batch.image}) > 1
    for image, targets in zip(batch.image, batch.targets, strict=True):
        assert targets.masks.shape[1:] == image.shape[1:]
    part = batch[:2]
    assert (len(part), len(part.image), len(part.targets)) == (2, 2, 2)


def test_augmentation_moves_masks_and_boxes_with_the_picture(root: Path) -> None:
    options = {**PLAIN, "flip": True, "flip_vertical": True, "scale": (0.8, 2.0), "crop_size": (40, 40)}
    data = COCOInstances(root, photometric=0.2, **options)
    dataset, again = data.dataset("train"), COCOInstances(root, photometric=0.2, **options).dataset("train")
    lost = 0
    for epoch in range(6):
        for index in range(8):
            sample = dataset[epoch, index]
            targets = sample["targets"]
            assert max(sample["image"].shape[1:]) <= 40
            lost += len(scene(index)[1]) - len(targets)
            for box, mask in zip(targets.boxes, targets.masks, strict=True):
                ys, xs = torch.nonzero(mask, as_tuple=True)
                around = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
                assert (box - around).abs().max() <= 1.1  # half a pixel of each resize
                bright = sample["image"].float().mean(0)
                assert bright[mask].mean() < 140 < bright[~targets.masks.any(0)].mean()  # objects are dark
            other = again[epoch, index]
            assert (other["image"] == sample["image"]).all()
            assert (other["targets"].boxes == targets.boxes).all()
    assert lost > 20  # crops leave objects out
    assert not torch.equal(dataset[0, 4]["image"], dataset[1, 4]["image"])


def test_a_size_is_the_longest_of_both_sides() -> None:
    picture = tv_tensors.Image(torch.zeros(3, *SIZE, dtype=torch.uint8))
    for size, expected in (((20, 30), (20, 27)), ((100, 32), (24, 32)), (None, (48, 64))):
        assert ScaleJitter(size, (1, 1))(picture).shape == (3, *expected)
    assert RandomWindow((90, 10))(picture).shape == (3, 48, 10)


def test_what_a_window_cut_off_goes_and_what_it_cut_is_drawn_anew() -> None:
    masks = torch.zeros(4, 10, 10, dtype=torch.bool)
    masks[0, 2:4, 6:10], masks[1, 0:3, 0:1], masks[3, 5:6, 5:6] = True, True, True
    boxes = torch.tensor([[5.0, 1, 14, 5], [-4, 0, 1, 3], [-9, 0, 3, 3], [5, 5, 5.5, 6]])
    seen, keep = visible(boxes, masks, (10, 10))
    assert keep.tolist() == [True, True, False, False]  # the third shows no pixel, the fourth half of one
    assert seen[0].tolist() == [6, 2, 10, 4]
    assert seen[1].tolist() == [0, 0, 1, 3]
    assert visible(boxes, None, (10, 10))[1].tolist() == [True, True, True, False]
    assert visible(boxes[:0], masks[:0], (10, 10))[0].shape == (0, 4)


def test_numbered_masks_are_the_same_objects(tmp_path: Path) -> None:
    one = FolderInstances(write_masks(tmp_path / "one"), val_split="val", **PLAIN)
    two = FolderInstances(write_masks(tmp_path / "two", classes=True), classes=["square", "disc"], **PLAIN)
    assert (one.class_names, two.class_names) == (["object"], ["square", "disc"])
    files = [data.file(split) for data in (one, two) for split in ("train", "val")]
    assert [len(file.images) for file in files] == [7, 1, 7, 1]
    for file, data in ((files[0], one), (files[2], two)):
        for image in file.images:
            objects = scene(int(image.file_name.removesuffix(".png")))[1]
            found = {decode(each.segmentation).tobytes(): file.labels[each.category_id] for each in file.of(image)}
            true = {mask.tobytes(): int(category == 3 and data is two) for category, mask in objects}
            assert found == true
            assert sum(each.area for each in file.of(image)) == sum(mask.sum() for _, mask in objects)


def test_a_file_is_found_where_tools_put_it(tmp_path: Path) -> None:
    content = json.dumps(coco_json([1]))
    for place, (file, images) in enumerate(
        [
            ("annotations/instances_train2017.json", "train2017"),
            ("annotations/instances_train.json", "images"),
            ("train/_annotations.coco.json", "train"),
            ("result.json", ""),
            ("annotations/own.json", "pictures"),
        ]
    ):
        root = tmp_path / str(place)
        (root / images).mkdir(parents=True)
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_text(content)
        Image.fromarray(scene(1)[0]).save(root / images / "1.png")
        split = file if place > 2 else "train"
        data = COCOInstances(root, train_split=split, images=Path("pictures") if place == 4 else None, **PLAIN)
        assert len(data.dataset("train")[0, 0]["targets"]) == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"root": Path("nowhere")}, "nowhere does not exist: the root of the data"),
        ({"train_split": "trian", "val_split": "trian"}, "has no annotations/instances_trian.json.*it has annotations"),
        ({"classes": ["dics"]}, 'no class "dics".*Did you mean "disc"'),
        ({"scale": (2.0, 1.0)}, "scale 2.0, 1.0"),
        ({"crop_size": (0, 5)}, "crop_size 0, 5"),
        ({"images": Path("elsewhere")}, "0.png: No such file"),
    ],
)
def test_what_cannot_be_read_is_one_line(root: Path, options: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):  # noqa: PT012
        data = COCOInstances(**{"root": root, **PLAIN, **options})
        sample = data.dataset("train")[0, 0]
        raise sample if isinstance(sample, InputError) else AssertionError


def test_pictures_and_annotations_must_agree(root: Path, tmp_path: Path) -> None:
    write_coco(tmp_path / "set")
    path = tmp_path / "set" / "annotations" / "instances_train.json"
    given = json.loads(path.read_text())
    given["images"][1]["width"] += 1
    given["annotations"] = [{**each, "segmentation": None} for each in given["annotations"] if each["image_id"] != 101]
    path.write_text(json.dumps(given))
    dataset = COCOInstances(tmp_path / "set", **PLAIN).dataset("train")
    assert "Another size than its annotations say (64x48, and 65x48" in str(dataset[0, 1])
    assert "--data.masks false" in str(dataset[0, 2])
    assert dataset[0, 0]["targets"].masks.shape == (0, *SIZE)  # nothing there, and nothing missing
    boxes = COCOInstances(tmp_path / "set", masks=False, **PLAIN).dataset("train")[0, 2]["targets"]
    assert boxes.masks is None
    assert boxes.boxes.shape == (2, 4)
    given["categories"][0]["id"] = 8
    given["annotations"] = []
    path.write_text(json.dumps(given))
    data = COCOInstances(tmp_path / "set", **PLAIN)
    with pytest.raises(
        InputError, match="other categories than the other splits: 3 disc, 7 square, and not 3 disc, 8 square"
    ):
        data.dataset("val")


def test_pictures_without_objects_can_be_left_out(root: Path) -> None:
    assert len(COCOInstances(root, **PLAIN).dataset("train")) == 8
    data = COCOInstances(root, skip_empty=True, **PLAIN)
    assert [image.id for image in data.dataset("train").images] == [101, 102, 103, 105, 106, 107]
    assert len(data.dataset("val")) == 4


def test_a_numbered_mask_of_no_class_or_saved_as_jpeg_is_one_line(tmp_path: Path) -> None:
    root = write_masks(tmp_path / "set")
    with pytest.raises(
        InputError, match=r"Number 1: of no class\. With 2 classes the numbers of objects go from 1000 to 2999"
    ):
        FolderInstances(root, classes=["a", "b"], **PLAIN).file("train")
    Image.fromarray(np.full(SIZE, 3, dtype=np.uint8)).save(root / "masks" / "1.jpg")
    (root / "masks" / "1.png").unlink()
    with pytest.raises(InputError, match="saved as JPEG"):
        FolderInstances(root, **PLAIN).file("train")


def test_a_folder_of_photographs_is_predicted_without_annotations(root: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(scene(1)[0][:20]).save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "b.png").write_bytes(b"no picture")
    data = COCOInstances(root, predict_folder=tmp_path / "photos", **PLAIN)
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert (batch.names, batch.sizes, batch.truth, batch.targets) == (["a.png"], [(20, 64)], None, None)
    assert "b.png" in data.faults[0]
