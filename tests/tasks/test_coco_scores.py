"""COCO's figures against the official code, and each trap around them."""

import contextlib
import copy
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as official_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lightning_app.data import coco
from lightning_app.tasks.coco_scores import CocoResults, ImageResult, coco_scores, results_of_file

SIDE = 160
CATEGORIES = (3, 17, 90)


def rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = official_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def rectangle(box: list[float]) -> np.ndarray:
    x, y, w, h = (round(each) for each in box)
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = True
    return mask


@pytest.fixture(scope="module")
def set_and_results() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Images with objects of all sizes, crowds, areas smaller than boxes, no object, and results that nearly fit."""
    dice = np.random.default_rng(0)
    images = [{"id": number, "file_name": f"{number}.png", "height": SIDE, "width": SIDE} for number in range(11, 31)]
    annotations, results = [], []
    for image in images[:-1]:
        for _ in range(6):
            side = float(dice.choice([12, 40, 110]))
            box = [*dice.uniform(0, SIDE - side, 2).round().tolist(), side, side]
            mask = rectangle(box)
            mask[:, : int(box[0] + 3)] = False  # so that its area is not its box's
            crowd = int(dice.random() < 0.1)
            category = int(dice.choice(CATEGORIES[:2]))
            known = {"image_id": image["id"], "category_id": category}
            annotations.append(
                {"id": len(annotations), "bbox": box, "area": float(mask.sum()), "iscrowd": crowd}
                | {"segmentation": rle(mask)}
                | known
            )
            for _ in range(int(dice.integers(0, 3))):
                near = (np.array(box) + dice.normal(0, side / 10, 4)).tolist()
                near[2:] = [max(each, 2.0) for each in near[2:]]
                known = {"image_id": image["id"], "category_id": category if dice.random() < 0.9 else CATEGORIES[2]}
                results.append(
                    {"score": float(dice.random()), "bbox": near, "segmentation": rle(rectangle(near))} | known
                )
    categories = [{"id": number, "name": f"class {number}"} for number in CATEGORIES]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def judged(given: dict[str, Any], results: list[dict[str, Any]], kind: str, **options: Any) -> tuple[list[float], Any]:
    """The official code's figures, and its precisions."""
    given, results = copy.deepcopy(given), copy.deepcopy(results)
    for each in given["annotations"]:
        each["id"] += 1
    for each in results:
        if kind == "segm":
            each.pop("bbox", None)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = given
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(results), kind)
        for name, value in options.items():
            setattr(judge.params, name, value)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [value if value >= 0 else math.nan for value in judge.stats], judge.eval["precision"]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_figures_are_the_official_ones(tmp_path: Path, set_and_results: Any, kind: Any) -> None:
    given, results = set_and_results
    path = tmp_path / "set.json"
    path.write_text(json.dumps(given))
    file = coco.read(path)
    ours = coco_scores(kind, results_of_file(file, results), list(file.labels))
    official, precision = judged(given, results, kind)
    assert list(ours.figures.values()) == pytest.approx(official[: len(ours.figures)], abs=1e-12)
    assert 0.1 < ours.figures["AP"] < 0.9
    for place in range(2):
        of_class = precision[:, :, place, 0, -1]
        assert ours.per_class[place] == pytest.approx(of_class[of_class > -1].mean(), abs=1e-12)
    assert math.isnan(ours.per_class[2])  # a class of which there is none counts for nothing


def test_keypoints_are_the_official_ones_with_sigmas_of_ones_own() -> None:
    dice = np.random.default_rng(1)
    sigmas = [0.05, 0.1, 0.025]
    given: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "bee"}]}
    results = []
    for number in range(1, 9):
        given["images"].append({"id": number, "file_name": f"{number}.png", "height": SIDE, "width": SIDE})
        points = np.column_stack([dice.uniform(20, 140, (3, 2)), dice.choice([0, 1, 2], 3, p=[0.2, 0.3, 0.5])])
        known = {"image_id": number, "category_id": 1}
        given["annotations"].append(
            {"id": number - 1, "bbox": [20, 20, 120, 120], "area": 7000.0, "iscrowd": 0}
            | {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
            | known
        )
        found = points.copy()
        found[:, :2] += dice.normal(0, 5, (3, 2))
        results.append({"score": float(dice.random()), "keypoints": found.ravel().tolist()} | known)
    images = [
        ImageResult(number, SIDE, SIDE, [given["annotations"][number - 1]], [results[number - 1]])
        for number in range(1, 9)
    ]
    ours = coco_scores("keypoints", images, [1], sigmas=sigmas)
    official, _ = judged(given, results, "keypoints", kpt_oks_sigmas=np.array(sigmas))
    assert list(ours.figures)[:6] == ["AP", "AP50", "AP75", "AP_medium", "AP_large", "AR"]
    assert list(ours.figures.values()) == pytest.approx(official[:10], abs=1e-12, nan_ok=True)
    assert 0.05 < ours.figures["AP"] < 0.95


def one(truth: list[dict[str, Any]], results: list[dict[str, Any]], kind: Any = "bbox") -> dict[str, float]:
    truth = [{"category_id": 1, "iscrowd": 0, "area": each["bbox"][2] * each["bbox"][3]} | each for each in truth]
    results = [{"category_id": 1, "score": 0.5} | each for each in results]
    return dict(coco_scores(kind, [ImageResult(1, SIDE, SIDE, truth, results)], [1]).figures)


def test_thresholds_are_exact() -> None:
    """An IoU of 0.55 counts at the threshold 0.55, which as float32 is larger."""
    assert one([{"bbox": [0, 0, 100, 100]}], [{"bbox": [0, 0, 100, 55]}])["AP"] == pytest.approx(0.2)


def test_sizes_are_those_of_annotated_areas_and_crowds_are_no_misses() -> None:
    figures = one([{"bbox": [0, 0, 100, 100], "area": 900.0}], [{"bbox": [0, 0, 100, 100]}])
    assert figures["AP_small"] == pytest.approx(1)
    assert math.isnan(figures["AP_large"])
    objects = [{"bbox": [0, 0, 20, 20]}, {"bbox": [50, 50, 100, 100], "iscrowd": 1}]
    within = [{"bbox": [60 + shift, 60, 20, 20], "score": 0.9} for shift in range(4)]
    assert one(objects, [{"bbox": [0, 0, 20, 20], "score": 0.1}, *within])["AP"] == pytest.approx(1)


def test_masks_are_sorted_by_their_own_size_even_beside_a_box() -> None:
    mask = rectangle([0, 0, 20, 20])
    mask[140, 140] = True  # a small mask in a large box, which nothing fits
    truth = [{"bbox": [50, 50, 100, 100], "area": 10_000.0, "segmentation": rle(rectangle([50, 50, 100, 100]))}]
    right = {"bbox": [50, 50, 100, 100], "segmentation": truth[0]["segmentation"], "score": 0.1}
    wrong = {"bbox": [0, 0, 141, 141], "segmentation": rle(mask), "score": 0.9}
    assert one(truth, [right, wrong], "segm")["AP_large"] == pytest.approx(1)
    assert one(truth, [right, wrong], "bbox")["AP_large"] == pytest.approx(0.5)


def test_the_first_annotation_can_be_found() -> None:
    """Its id would be 0 were they counted from there, and a match with 0 is none."""
    assert one([{"bbox": [0, 0, 20, 20], "id": 0}], [{"bbox": [0, 0, 20, 20]}])["AP"] == pytest.approx(1)


def test_a_hundred_results_of_an_image_count() -> None:
    boxes = [[10.0 * (place % 16), 10.0 * (place // 16), 8, 8] for place in range(101)]
    figures = one([{"bbox": box} for box in boxes], [{"bbox": box} for box in boxes])
    assert figures["AR100"] == pytest.approx(100 / 101)


def test_no_result_is_a_score_of_zero_and_no_object_is_none() -> None:
    assert one([{"bbox": [0, 0, 20, 20]}], [])["AP"] == 0
    assert math.isnan(one([], [{"bbox": [0, 0, 20, 20]}])["AP"])
    assert math.isnan(one([], [])["AP"])


def image_of(number: int) -> ImageResult:
    box = {"category_id": 1, "bbox": [0.0, 0.0, 20.0, 20.0], "area": 400.0, "iscrowd": 0}
    return ImageResult(number, SIDE, SIDE, [box], [{"category_id": 1, "score": 0.5, "bbox": box["bbox"]}])


def test_an_image_that_comes_twice_counts_once_and_none_after_a_reset() -> None:
    kept = CocoResults()
    for number in (2, 1, 2):
        kept.update(image_of(number))
    assert [each.id for each in kept.compute()] == [1, 2]
    kept.reset()
    kept.update(image_of(3))
    assert [each.id for each in kept.compute()] == [3]


def _on_a_device(rank: int, address: str, out: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
    kept = CocoResults()
    for number in ((1, 3), (2, 3))[rank]:  # a padded sampler gives one image to both
        kept.update(image_of(number))
    (out / str(rank)).write_text(json.dumps([each.id for each in kept.compute()]))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_devices_see_all_images_once(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_on_a_device, (str(tmp_path / "meet"), tmp_path), nprocs=2)
    assert [json.loads((tmp_path / str(rank)).read_text()) for rank in range(2)] == [[1, 2, 3]] * 2
