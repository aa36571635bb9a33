"""Reading COCO's JSON: what tools write, and what no tool should."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as judge

from lightning_app.data import coco, rle
from lightning_app.data.bad_file import BadFile
from lightning_app.util.errors import InputError

TRIANGLE = [2.0, 1.0, 9.5, 1.0, 9.5, 7.25]
POINTS = ["nose", "left ear", "right ear"]


def content(**changes: Any) -> dict[str, Any]:
    """A file with two categories, three images of which one holds nothing, and four objects."""
    mask = np.zeros((10, 12), dtype=np.uint8)
    mask[3:8, 2:7] = 1
    compressed = judge.encode(np.asfortranarray(mask))
    runs = [23, 5, 5, 5, 5, 5, 5, 5, 5, 5, 52]
    made = {
        "info": {"flip_pairs": [[1, 2]]},
        "images": [{"id": number, "file_name": f"{number}.png", "height": 10, "width": 12} for number in (7, 3, 90)],
        "categories": [
            {"id": 44, "name": "dog", "keypoints": POINTS, "skeleton": [[1, 2], [1, 3]]},
            {"id": 0, "name": "cat"},
        ],
        "annotations": [
            {"id": 0, "image_id": 7, "category_id": 0, "bbox": [2, 1, 7.5, 6.25], "area": 23.4, "iscrowd": 0}
            | {"segmentation": [TRIANGLE]},
            {"id": 1, "image_id": 7, "category_id": 44, "bbox": [2, 3, 5, 5], "area": 25, "iscrowd": 0}
            | {"segmentation": {"size": [10, 12], "counts": compressed["counts"].decode()}}
            | {"keypoints": [1, 2, 2, 3.5, 4, 1, 0, 0, 0], "num_keypoints": 2},
            {"id": 2, "image_id": 3, "category_id": 0, "bbox": [2, 3, 5, 5], "area": 25, "iscrowd": 1}
            | {"segmentation": {"size": [10, 12], "counts": runs}},
            {"id": 3, "image_id": 3, "category_id": 0, "segmentation": [TRIANGLE, [0, 0, 2, 0, 2, 2, 0, 2]]},
        ],
    }
    return made | changes


def written(folder: Path, given: Any) -> Path:
    path = folder / "instances.json"
    path.write_text(given if isinstance(given, str) else json.dumps(given))
    return path


def test_all_of_a_file_is_read_in_the_order_of_ids(tmp_path: Path) -> None:
    file = coco.read(written(tmp_path, content()))
    assert [image.id for image in file.images] == [3, 7, 90]
    assert file.class_names == ["cat", "dog"]
    assert file.labels == {0: 0, 44: 1}
    assert file.categories[1].keypoints == tuple(POINTS)
    assert file.categories[1].skeleton == ((0, 1), (0, 2))
    assert file.info == {"flip_pairs": [[1, 2]]}
    nothing = file.images[2]
    assert file.of(nothing) == ()
    cat, dog = file.of(file.images[1])
    assert (cat.area, cat.iscrowd, dog.num_keypoints, dog.keypoints[3:6]) == (23.4, False, 2, (3.5, 4.0, 1.0))
    crowd, other = file.of(file.images[0])
    assert crowd.iscrowd
    assert not other.iscrowd


def test_outlines_are_masks_as_the_official_code_draws_them(tmp_path: Path) -> None:
    file = coco.read(written(tmp_path, content()))
    cat, dog = (rle.decode(rle.to_rle(each.segmentation, 10, 12)) for each in file.of(file.images[1]))
    crowd, other = (rle.decode(rle.to_rle(each.segmentation, 10, 12)) for each in file.of(file.images[0]))
    assert (cat == judge.decode(judge.frPyObjects([TRIANGLE], 10, 12))[..., 0]).all()
    assert (crowd == dog).all()
    assert dog.sum() == 25
    assert dog[3:8, 2:7].all()
    both = judge.merge(judge.frPyObjects([TRIANGLE, [0, 0, 2, 0, 2, 2, 0, 2]], 10, 12))
    assert (other == judge.decode(both)).all()
    assert judge.area(rle.encode(other)) == other.sum()


def test_what_an_annotation_does_not_say_comes_from_its_outline(tmp_path: Path) -> None:
    file = coco.read(written(tmp_path, content()))
    other = file.of(file.images[0])[1]
    merged = judge.merge(judge.frPyObjects([TRIANGLE, [0, 0, 2, 0, 2, 2, 0, 2]], 10, 12))
    assert other.bbox == tuple(judge.toBbox(merged))
    assert other.area == judge.area(merged)


def test_a_choice_of_classes_keeps_all_images(tmp_path: Path) -> None:
    file = coco.read(written(tmp_path, content())).with_classes(["dog"])
    assert file.labels == {44: 0}
    assert len(file.images) == 3
    assert [each.id for each in file.of(file.images[1])] == [1]
    with pytest.raises(InputError, match=r'no class "dig".*"dog".*cat, dog'):
        coco.read(written(tmp_path, content())).with_classes(["dig"])


def image(**changes: Any) -> dict[str, Any]:
    return {"images": [{"id": 7, "file_name": "7.png", "height": 10, "width": 12} | changes], "annotations": []}


def annotation(**changes: Any) -> dict[str, Any]:
    return {"annotations": [{"id": 5, "image_id": 7, "category_id": 44, "bbox": [1, 1, 2, 2]} | changes]}


def mask(counts: Any, size: tuple[int, int] = (10, 12)) -> dict[str, Any]:
    return annotation(segmentation={"size": list(size), "counts": counts})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"images": None}, 'No list of "images"'),
        ({"categories": {}}, 'No list of "categories"'),
        ({"images": [3]}, "image 0 of the list"),
        (image(id="7"), "no whole number (image 0 of the list: 7)"),
        (image(id=True), "no whole number"),
        (image(id=10**30), "no whole number"),
        (image(file_name=""), "without a file_name (image 7"),
        (image(file_name="a\0.png"), "without a file_name"),
        (image(file_name="../../etc/passwd"), "leads out of the folder of images (image 7: ../../etc/passwd)"),
        (image(file_name="/etc/passwd"), "leads out"),
        (image(file_name="..\\..\\secret.png"), "leads out"),
        (image(height=0), "height or width is no whole number above 0 (image 7: 0, 12)"),
        (image(height=2.5), "height or width"),
        (image(height=10**6, width=10**6), "too many pixels (image 7: 1000000x1000000)"),
        ({"images": [*image()["images"], *image()["images"]]}, "comes twice (image 7)"),
        ({"categories": [{"id": 44}]}, "without a name (category 44)"),
        ({"categories": [{"id": 44, "name": " "}]}, "without a name"),
        ({"categories": [{"id": 44, "name": "x", "keypoints": "nose"}]}, "no list of names"),
        ({"categories": [{"id": 44, "name": "x", "keypoints": ["a"], "skeleton": [[0, 1]]}]}, "beyond 1 to 1"),
        ({"categories": [{"id": 44, "name": "x", "skeleton": 5}]}, "no list of pairs"),
        (annotation(image_id=8), "an image that is not in the file (annotation 5: 8)"),
        (annotation(category_id=45), "a category that is not in the file (annotation 5: 45)"),
        (annotation(category_id=[]), "a category that is not in the file"),
        (annotation(bbox=[1, 1, 2]), "not four numbers (annotation 5: [1, 1, 2])"),
        (annotation(bbox=None), "neither bbox nor segmentation"),
        (annotation(bbox=[1, 1, float("inf"), 2]), "not four numbers"),
        (annotation(bbox=["1", 1, 2, 2]), "not four numbers"),
        (annotation(area=float("nan")), "An area that is no number"),
        (annotation(iscrowd=2), "iscrowd"),
        (annotation(segmentation="all of it"), "neither polygons nor an RLE"),
        (annotation(segmentation=[[1, 1, "2", 2, 3, 3]]), "neither polygons nor an RLE"),
        (annotation(segmentation=[[1, 1, 2, 2, 3, 3, 4]]), "odd number"),
        (annotation(segmentation=[[1, 1, 1e9, 2, 3, 3]]), "further from the image"),
        (annotation(segmentation=[[1, 1, float("nan"), 2, 3, 3]]), "neither polygons nor an RLE"),
        (annotation(segmentation=[[0, 0, 12, 10] * 300_000]), "too long to be drawn"),
        (mask("o", (12, 10)), "another size than its image's 10, 12 (annotation 5: [12, 10])"),
        (mask("o", (10**9, 10**9)), "another size"),
        (mask("5"), "do not add up"),
        (mask("é"), "damaged RLE"),
        (mask("oooooooooooooooo"), "damaged RLE"),
        (mask([100, 30]), "do not add up"),
        (mask([130, -10]), "do not add up"),
        (mask([60.0, 60.0]), "without counts"),
        (mask(None), "without counts"),
        (annotation(keypoints=[1, 2, 2]), "not 3 times x, y, v"),
        (annotation(keypoints=[1, 2, 2, 3, 4, 7, 0, 0, 0]), "none of 0, 1, 2"),
        ({"annotations": [*annotation()["annotations"]] * 2}, "comes twice"),
    ],
)
def test_a_bad_file_is_one_line_that_names_the_place(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    path = written(tmp_path, content(**changes))
    with pytest.raises(BadFile) as caught:
        coco.read(path)
    assert line in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"images": 1' + "0" * 5000 + "}", "\xff"])
def test_what_is_no_json_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(BadFile, match=r"Not JSON|No UTF-8|No list"):
        coco.read(path)
    with pytest.raises(BadFile, match="No such file"):
        coco.read(tmp_path / "other.json")


def test_all_faults_are_told_and_the_rest_is_read(tmp_path: Path) -> None:
    given = content()
    given["annotations"][0]["bbox"] = "none"
    given["annotations"][1]["category_id"] = 9
    told: list[str] = []
    file = coco.parse(written(tmp_path, given), lambda problem, where: told.append(where))
    assert told == ["annotation 0: none", "annotation 1: 9"]
    assert [each.id for found in file.annotations.values() for each in found] == [2, 3]
