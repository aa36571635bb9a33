"""Exports of labelling tools, as these tools write them."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_app.app.cli import main
from lightning_app.data.instance.coco import COCOInstances
from lightning_app.data.rle import decode, to_rle
from lightning_app.data.semantic.folder import Folder
from lightning_app.tools.data import main as data_main
from lightning_app.util.errors import InputError

SIZE = (40, 60)
SQUARE = [[10, 5], [30, 5], [30, 25], [10, 25]]  # 20 x 20 pixels


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), value, dtype=np.uint8)).save(path)


def flat(points: list[list[float]]) -> list[float]:
    return [each for point in points for each in point]


def coco_export(folder: Path, file: str, names: dict[int, str], file_name: str, **more: Any) -> None:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    box = {"bbox": [10, 5, 20, 20], "area": 400, "iscrowd": 0}
    annotation = {"id": 0, "image_id": 0, "category_id": max(names), "segmentation": [flat(SQUARE)], **box, **more}
    image = {"id": 0, "file_name": file_name, "height": SIZE[0], "width": SIZE[1]}
    categories = [{"id": number, "name": name, "supercategory": "none"} for number, name in names.items()]
    path.write_text(json.dumps({"images": [image], "annotations": [annotation], "categories": categories}))


def labelme(folder: Path, name: str, shapes: list[dict[str, Any]], image: str = "") -> None:
    picture(folder / f"{name}.jpg")
    content = {"version": "5.4", "flags": {}, "shapes": shapes, "imagePath": image or f"{name}.jpg", "imageData": None}
    (folder / f"{name}.json").write_text(json.dumps(content))


def imported(source: Path, out: Path, *args: str) -> COCOInstances:
    assert data_main(["import", str(source), "--out", str(out), *args]) == 0
    return COCOInstances(out, image_size=None, flip=False, num_workers=0)


def areas(data: COCOInstances, split: str = "train") -> dict[str, int]:
    """Pixels of each class's objects."""
    file = data.file(split)
    found: dict[str, int] = {}
    for image in file.images:
        for each in file.of(image):
            name = file.class_names[file.labels[each.category_id]]
            found[name] = found.get(name, 0) + int(decode(to_rle(each.segmentation, *SIZE)).sum())
    return found


def test_cvat(tmp_path: Path) -> None:
    """annotations/instances_default.json, pictures below images/default, masks as runs."""
    source = tmp_path / "cvat"
    picture(source / "images" / "default" / "a b.png")
    mask = np.zeros(SIZE, dtype=bool)
    mask[5:25, 10:30] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [0]])))
    runs = np.diff([0, *edges, mask.size]).tolist()
    rle = {"size": list(SIZE), "counts": runs}
    coco_export(source, "annotations/instances_default.json", {1: "cell", 2: "bud"}, "a b.png", segmentation=rle)
    data = imported(source, tmp_path / "out")
    assert areas(data) == {"bud": 400}
    assert data.class_names == ["bud"]  # a class that nothing has is left out
    assert (tmp_path / "out" / "train" / "a b.png").read_bytes() == (source / "images/default/a b.png").read_bytes()
    assert len(data.dataset("train")[0, 0]["targets"]) == 1


@pytest.mark.parametrize("name", ["images\\9c0d-a.png", "../../label-studio/data/media/upload/1/9c0d-a.png"])
def test_label_studio(tmp_path: Path, name: str) -> None:
    """result.json beside images/, with paths of the machine it ran on."""
    source = tmp_path / "studio"
    picture(source / "images" / "9c0d-a.png")
    coco_export(source, "result.json", {0: "cell"}, name)
    assert areas(imported(source, tmp_path / "out")) == {"cell": 400}
    assert areas(imported(source / "result.json", tmp_path / "again")) == {"cell": 400}


def test_roboflow(tmp_path: Path) -> None:
    """Splits as folders, each with its file; a first class that names the set."""
    for value, split in enumerate(("train", "valid", "test")):
        picture(tmp_path / "robo" / split / "a_jpg.rf.1.jpg", value)
        coco_export(tmp_path / "robo", f"{split}/_annotations.coco.json", {0: "cells", 1: "cell"}, "a_jpg.rf.1.jpg")
    data = imported(tmp_path / "robo", tmp_path / "out")
    assert [areas(data, split) for split in ("train", "val", "test")] == [{"cell": 400}] * 3
    assert (tmp_path / "out" / "val" / "a_jpg.rf.1.jpg").read_bytes() == (
        tmp_path / "robo" / "valid" / "a_jpg.rf.1.jpg"
    ).read_bytes()


def test_labelme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "labelme"
    stream = io.BytesIO()
    Image.fromarray(np.full((20, 20), 255, dtype=np.uint8)).convert("1").save(stream, "PNG")
    mask = base64.b64encode(stream.getvalue()).decode()
    kinds = [
        {"label": "polygon", "points": SQUARE, "shape_type": "polygon"},
        {"label": "rectangle", "points": [SQUARE[0], SQUARE[2]], "shape_type": "rectangle"},
        {"label": "circle", "points": [[30, 20], [30, 30]], "shape_type": "circle"},
        {"label": "mask", "points": [[10, 5], [29, 24]], "shape_type": "mask", "mask": mask},
        {"label": "two", "points": SQUARE, "shape_type": "polygon", "group_id": 1},
        {"label": "two", "points": [[40, 5], [50, 5], [50, 25], [40, 25]], "shape_type": "polygon", "group_id": 1},
        {"label": "point", "points": [[1, 1]], "shape_type": "point"},
    ]
    labelme(source / "train", "a", kinds, "..\\train\\a.jpg")
    labelme(source / "val", "a", [])
    data = imported(source, tmp_path / "out")
    found = areas(data)
    assert found.pop("circle") == pytest.approx(np.pi * 100, rel=0.05)
    assert found == {"polygon": 400, "rectangle": 400, "mask": 400, "two": 600}
    assert sum(map(len, data.file("train").annotations.values())) == 5  # a group is one object
    assert data.file("val").of(data.file("val").images[0]) == ()
    assert "left out: 1 shapes of type point" in capsys.readouterr().err


def yolo(folder: Path, lines: str, names: str = "names: [cell, bud]") -> Path:
    picture(folder / "images" / "train" / "a.png")
    picture(folder / "images" / "val" / "b.png", 1)
    (folder / "labels" / "train").mkdir(parents=True)
    (folder / "labels" / "train" / "a.txt").write_text(lines)
    (folder / "data.yaml").write_text(names)
    return folder


@pytest.mark.parametrize("names", ["names: [cell, bud]", "names: {0: cell, 1: bud}\nnc: 2"])
def test_yolo(tmp_path: Path, names: str) -> None:
    outline = " ".join(str(each / side) for point in SQUARE for each, side in zip(point, (60, 40), strict=True))
    source = yolo(tmp_path / "yolo", f"1 {outline}\n\n1 {outline}\n0 {20 / 60} {15 / 40} {20 / 60} {20 / 40}\n", names)
    imported(source, tmp_path / "out")
    data = COCOInstances(tmp_path / "out", masks=False, image_size=None, flip=False, num_workers=0)
    targets = data.dataset("train")[0, 0]["targets"]
    assert targets.labels.tolist() == [1, 1, 0]
    assert targets.boxes.numpy() == pytest.approx(np.array([[10, 5, 30, 25]] * 3), abs=1e-4)
    assert [len(data.file(split).images) for split in ("train", "val")] == [1, 1]


def test_masks_number_classes_and_smaller_objects_lie_above(tmp_path: Path) -> None:
    large = [[2, 2], [50, 2], [50, 35], [2, 35]]
    shapes = [{"label": "bud", "points": SQUARE}, {"label": "cell", "points": large}]
    for number in range(6):
        labelme(tmp_path / "labelme", str(number), shapes)
    assert data_main(["import", str(tmp_path / "labelme"), "--out", str(tmp_path / "out"), "--masks"]) == 0
    data = Folder(tmp_path / "out", crop_size=SIZE, num_workers=0)
    assert data.class_names == ["background", "bud", "cell"]
    pixels = data.label_counts()
    images = len(data.dataset("train"))
    assert pixels[1] == 400 * images
    assert pixels[2] == (48 * 33 - 400) * images
    assert images + len(data.dataset("val")) == 6
    assert len(data.dataset("val")) > 0


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda at: None, "does not exist"),
        (lambda at: picture(at / "a.png"), "no export that is known"),
        (lambda at: coco_export(at, "result.json", {1: "cell"}, "a.png"), "No picture a.png"),
        (
            lambda at: (
                picture(at / "a.png"),
                coco_export(at, "r.json", {1: "c"}, "a.png", segmentation=[[1e7, 0, 5, 5, 9, 1]]),
            ),
            "further from the image",
        ),
        (lambda at: labelme(at, "a", [{"label": "", "points": SQUARE}]), "without a label"),
        (lambda at: labelme(at, "a", [{"label": "x", "points": [[0, 0, 0]]}]), "no pairs of numbers (shape 0)"),
        (lambda at: labelme(at, "a", [{"label": "x", "points": [[1e9, 0], [5, 5], [9, 1]]}]), "further from the image"),
        (
            lambda at: labelme(at, "a", [{"label": "x", "points": SQUARE, "shape_type": "mask", "mask": "!"}]),
            "no PNG",
        ),
        (lambda at: yolo(at, "0 0.1 0.1 0.2\n"), "line 1: 0 0.1 0.1 0.2"),
        (lambda at: yolo(at, "7 0.1 0.1 0.2 0.2\n"), "Class 7, and names for 0 to 1"),
        (lambda at: yolo(at, "0 0.1 0.1 900 0.2\n"), "no object"),
        (lambda at: yolo(at, "0 nan 0.1 0.3 0.2\n"), "no object"),
        (lambda at: yolo(at, "", "names: 5"), 'No "names"'),
        (lambda at: yolo(at, "", "names: !!python/object/apply:os.system [ls]"), "Not YAML"),
    ],
)
def test_what_cannot_be_imported_is_one_line_and_leaves_nothing(tmp_path: Path, make: Any, line: str) -> None:
    make(tmp_path / "source")
    with pytest.raises(InputError) as caught:
        data_main(["import", str(tmp_path / "source"), "--out", str(tmp_path / "out")])
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) in ([], ["source"])


def test_the_command_line_says_what_it_wrote_and_overwrites_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelme(tmp_path / "labelme", "a", [{"label": "cell", "points": SQUARE}])
    command = ["data", "import", str(tmp_path / "labelme"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "(labelme): 1 train; 1 objects of cell" in said
    assert f"contextzoo data check --data COCOInstances --data.root {tmp_path / 'out'}" in said
    assert main(command) == 2
    assert "is there already: give another --out" in capsys.readouterr().err
    assert main([*command[:3], "--out", str(tmp_path / "x"), "--val-share", "2"]) == 2
    assert "not a share" in capsys.readouterr().err
