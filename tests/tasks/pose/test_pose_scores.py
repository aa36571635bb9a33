"""AP, AR and PCK of keypoints, against the official code and the numbers of others."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_files import golden_files
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lightning_app.data.coco import parse
from lightning_app.data.coco_records import CocoImage
from lightning_app.tasks.coco_scores import ImageResult, coco_scores, results_of_file
from lightning_app.tasks.pose.metrics import pck, report_of

ORDER = ("AP", "AP50", "AP75", "AP_medium", "AP_large", "AR", "AR50", "AR75", "AR_medium", "AR_large")


def _golden(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as file:
        content = {name: file[name] for name in file.files}
    return content, json.loads(str(content["meta"]))


def _judge(truth: dict[str, Any], results: list[dict[str, Any]], sigmas: list[float] | None) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        official = COCO()
        official.dataset = truth
        official.createIndex()
        evaluation = COCOeval(official, official.loadRes(results), "keypoints")
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(ORDER, evaluation.stats.tolist(), strict=True))


@pytest.mark.parametrize("path", golden_files("pose", "coco_ap__"), ids=lambda path: path.stem)
def test_ap_is_that_of_the_official_code(path: Path, tmp_path: Path) -> None:
    golden, meta = _golden(path)
    truth, results = json.loads(str(golden["gt_json"])), json.loads(str(golden["dt_json"]))
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    file = parse(tmp_path / "gt.json", lambda problem, where: None)
    found = coco_scores("keypoints", results_of_file(file, results), [1], sigmas=meta.get("sigmas"))
    want = dict(zip(ORDER, golden["stats_pycocotools"].tolist(), strict=True))
    for name, value in want.items():
        assert found.figures[name] == pytest.approx(value, abs=1e-12), name
    assert _judge(truth, results, meta.get("sigmas")) == pytest.approx(want)


@pytest.mark.parametrize("path", golden_files("pose", "pck__"), ids=lambda path: path.stem)
def test_pck_is_that_of_mmpose(path: Path) -> None:
    golden, _ = _golden(path)
    for name in golden:
        if name.startswith("acc_"):
            threshold = float(name.removeprefix("acc_"))
            found = pck(golden["pred"], golden["gt"], golden["valid"], golden["norm"], threshold)
            np.testing.assert_allclose(np.nan_to_num(found, nan=-1.0), golden[name], atol=1e-6)
            assert np.nanmean(found) == pytest.approx(float(golden[f"mean_{threshold:g}"]), abs=1e-6)


def _person(image: int, points: list[list[float]], **more: Any) -> dict[str, Any]:
    flat = [value for point in points for value in point]
    labelled = sum(point[2] > 0 for point in points)
    whole = {"category_id": 5, "bbox": [0.0, 0, 100, 50], "area": 2650.0, "iscrowd": 0, "num_keypoints": labelled}
    return whole | {"keypoints": flat} | more


def _found(points: list[list[float]], score: float) -> dict[str, Any]:
    return {"category_id": 5, "score": score, "keypoints": [value for point in points for value in point]}


def test_a_report_counts_every_image_and_says_where_was_looked() -> None:
    here, there = [[10.0, 10, 2], [50, 40, 2]], [[12.0, 10, 2], [50, 48, 2]]
    images = [
        ImageResult(1, 60, 120, [_person(1, here)], [_found(there, 0.9)]),
        ImageResult(2, 60, 120, [_person(2, here)], []),
        ImageResult(3, 60, 120, [], [_found(here, 0.99)]),  # nobody is there
        ImageResult(4, 60, 120, [_person(4, here, iscrowd=1)], [_found(here, 0.8)]),
        ImageResult(5, 60, 120, [_person(5, [[10.0, 10, 2], [0, 0, 0]])], [_found(here, 0.7)]),
    ]
    report = report_of(
        images, ("nose", "tail"), (0.1, 0.1), category_id=5, thing="newt", box_source="whole pictures", devices=2
    )
    assert report.columns == ("keypoint", "PCK@0.05", "PCK@0.1", "PCK@0.2", "labelled")
    nose, tail = report.rows
    assert nose == ("nose", pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3), 1.0)
    assert tail == ("tail", 0.0, pytest.approx(1 / 2), pytest.approx(1 / 2), pytest.approx(2 / 3))
    assert report.figures["PCK"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert report.counts == {"images": 5, "marked": 3, "found": 4}
    assert "5 images, each counted once over 2 devices: 3 marked, 4 found (newt, in whole pictures)" in report.summary
    annotations, results = [], []
    for image in images:
        annotations += [{**each, "id": len(annotations) + 1, "image_id": image.id} for each in image.truth]
        results += [{**each, "image_id": image.id} for each in image.results]
    truth = {
        "images": [{"id": image.id, "width": 120, "height": 60} for image in images],
        "annotations": annotations,
        "categories": [{"id": 5, "name": "newt"}],
    }
    judged = _judge(truth, results, [0.1, 0.1])
    assert 0 < judged["AP"] < 1
    for name in ("AP", "AP50", "AP75", "AP_medium", "AR", "AR50"):
        assert report.figures[name] == pytest.approx(judged[name]), name


def test_an_empty_set_has_no_figures() -> None:
    image = CocoImage(1, "1.png", 60, 120)
    report = report_of([ImageResult.of(image, (), [])], ("nose",), (0.1,))
    assert np.isnan(report.figures["AP"])
    assert np.isnan(report.figures["PCK"])
    assert report.counts["found"] == 0
