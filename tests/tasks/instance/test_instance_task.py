"""The task of objects: what is learned, found, scored, drawn and written."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from instances import SIZE, scene, write_coco
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import WandbLogger
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lightning_app.backbones.timm import TimmBackbone
from lightning_app.callbacks import PredictionWriter, WandbReport
from lightning_app.data import rle
from lightning_app.data.coco_records import CocoAnnotation, CocoImage
from lightning_app.data.instance.coco import COCOInstances
from lightning_app.tasks.instance.draw import InstanceDrawing, overlay
from lightning_app.tasks.instance.found import Found
from lightning_app.tasks.instance.task import InstanceTask

COLOURS = [(0, 114, 178), (230, 159, 0)]  # of two classes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> COCOInstances:
    root = write_coco(tmp_path_factory.mktemp("coco"), crowd=True)
    return COCOInstances(root, image_size=None, num_workers=0, batch_size=4)


def new_task(data: COCOInstances, **options: Any) -> InstanceTask:
    seed_everything(0, verbose=False)
    facts = {name: getattr(data, name) for name in InstanceTask.from_data}
    backbone = TimmBackbone("resnet10t")
    return InstanceTask(backbone, **facts, channels=16, hidden=16, anchor_scale=2.0, **options)


def trainer(folder: Path, **options: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    plain = {"accelerator": "cpu", "devices": 1, "use_distributed_sampler": False, "num_sanity_val_steps": 0}
    return Trainer(default_root_dir=folder, **{**quiet, **plain, **options})


def truth_of(data: COCOInstances, split: str) -> tuple[list[CocoImage], list[Found]]:
    file = data.file(split)
    return list(file.images), [Found.annotated(image, file.of(image), data.category_ids) for image in file.images]


def test_a_training_steps_on_every_term_and_scores_every_image(data: COCOInstances, tmp_path: Path) -> None:
    task = new_task(data, optimizer="adamw", lr=1e-3)
    fit = trainer(tmp_path, max_epochs=1, limit_train_batches=1)
    fit.fit(task, datamodule=data)
    terms = {name for name in fit.callback_metrics if name.startswith("train/")}
    assert terms == {f"train/{each}" for each in ("loss", "rpn_objectness", "rpn_box", "class", "box", "mask")}
    report = task.reports["val"]
    assert report.counts == {"images": 4, "objects": 5}  # 0, 1, 2 and 3, of which the last is a crowd
    assert f"val/{task.figure}" == task.monitor
    assert task.figure in report.figures
    assert report.names == ["disc", "square"]
    assert report.columns == ("class", "mask_AP", "box_AP", "share")
    assert sum(row[-1] for row in report.rows) == pytest.approx(1)  # of the objects
    fit.save_checkpoint(tmp_path / "mine.ckpt")
    again = InstanceTask.load_from_checkpoint(tmp_path / "mine.ckpt")
    assert (again.title, again.class_names, again.category_ids) == (task.title, task.class_names, task.category_ids)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in task.state_dict().items())


def test_what_is_annotated_scores_full_marks_and_the_scores_begin_anew(data: COCOInstances, tmp_path: Path) -> None:
    """Where the network tells the truth; the crowd is no miss."""
    task = new_task(data)
    images, truth = truth_of(data, "val")
    answers = {image.file_name: found for image, found in zip(images, truth, strict=True)}
    task.predict = lambda batch: [answers[name] for name in batch.names]  # type: ignore[method-assign]
    validate = trainer(tmp_path)
    for _ in range(2):
        validate.validate(task, datamodule=data, verbose=False)
        figures = task.reports["val"].figures
        assert figures["mask_AP"] == figures["box_AP"] == figures["mask_AP75"] == pytest.approx(1)
        assert next(iter(task.reports["val"].figures)) == "mask_AP"
    assert "4 images, each counted once, with 5 objects and 1 crowds. Mask AP 100.0" in task.reports["val"].summary


def test_boxes_alone_have_no_masks_and_no_scores_of_them(data: COCOInstances, tmp_path: Path) -> None:
    boxes = COCOInstances(data.root, masks=False, image_size=None, num_workers=0, batch_size=4)
    task = new_task(boxes)
    trainer(tmp_path, max_epochs=1, limit_train_batches=1).fit(task, datamodule=boxes)
    assert not [name for name in task.reports["val"].figures if "mask" in name]
    assert task.monitor == "val/box_AP"


def test_results_are_cocos_and_of_the_files_own_ids(data: COCOInstances) -> None:
    images, truth = truth_of(data, "val")
    (result,) = truth[1].results(images[1].id, data.category_ids)
    category, mask = scene(9)[1][0]
    ys, xs = np.nonzero(mask)
    assert result["image_id"] == 109
    assert result["category_id"] == category
    assert result["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
    assert (rle.decode(result["segmentation"]) == mask).all()


def test_a_network_of_any_device_is_told_in_plain_numbers() -> None:
    from lightning_app.data.instance.instances import Instances

    masks = torch.zeros(2, *SIZE, dtype=torch.bool)
    masks[0, 3:9, 4:20] = True
    boxes = torch.tensor([[4.0, 3, 20, 9], [0, 0, 1, 1]])
    told = Instances(boxes, torch.tensor([1, 0]), torch.tensor([0.9, 0.2], dtype=torch.bfloat16), masks)
    found = Found.of(told, SIZE)
    assert found.boxes.tolist() == boxes.tolist()
    assert found.labels.tolist() == [1, 0]
    assert [mask.sum() for mask in found.bitmaps()] == [96, 0]
    assert len(found[found.scores > 0.5]) == 1
    assert next(iter(found[found.scores < 0.5].bitmaps())).sum() == 0


def square(colour: int = 0) -> Found:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 5:45] = True
    boxes = np.array([[5.0, 10, 45, 30]])
    return Found((40, 60), boxes, np.array([colour]), np.array([0.83]), (rle.encode(mask),))


def test_an_overlay_shows_outline_colour_and_count() -> None:
    photograph = np.full((40, 60, 3), 100, dtype=np.uint8)
    for label, colour in enumerate(COLOURS):
        picture = np.array(overlay(photograph, square(label), ["cell", "bud"]))
        zoom = 640 // 60
        assert picture.shape[1] == 60 * zoom
        assert picture.shape[0] > 40 * zoom  # the legend
        edge, middle = picture[29 * zoom + zoom - 1, 30 * zoom], picture[20 * zoom, 30 * zoom]
        assert tuple(edge) == colour
        assert middle.tolist() == pytest.approx([round(0.6 * 100 + 0.4 * part) for part in colour], abs=1)
        assert tuple(picture[35 * zoom, 30 * zoom]) == (100, 100, 100)
        named = picture[10 * zoom - 15 : 10 * zoom - 1, 5 * zoom : 20 * zoom].reshape(-1, 3)
        assert (named == colour).all(1).any()  # the name's ground
        assert ((named > 200).all(1) | (named < 40).all(1)).any()  # and its letters
    nothing = np.array(overlay(photograph, square()[np.array([False])], ["cell", "bud"]))
    assert (nothing[: 40 * zoom] == 100).all()


def test_boxes_without_masks_are_framed() -> None:
    found = square()
    boxes = Found(found.size, found.boxes, found.labels, found.scores)
    picture = np.array(overlay(np.full((40, 60, 3), 100, dtype=np.uint8), boxes, ["cell", "bud"]))
    assert tuple(picture[20 * 10, 5 * 10]) == COLOURS[0]
    assert tuple(picture[20 * 10, 30 * 10]) == (100, 100, 100)


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (-20, -30, 90, 80), (59, 39, 60, 40), (45, 30, 5, 10)])
def test_no_box_is_too_odd_to_be_drawn(box: tuple[float, ...]) -> None:
    for masks in (None, (rle.encode(np.zeros((40, 60), dtype=bool)),)):
        found = Found((40, 60), np.array([box], dtype=float), np.array([0]), np.array([0.5]), masks)
        overlay(np.zeros((40, 60, 3), dtype=np.uint8), found, ["cell"])


def test_a_drawing_has_classes_boxes_and_results_for_loggers_and_files(data: COCOInstances) -> None:
    task = new_task(data)
    data.setup("validate")
    batch = data.on_after_batch_transfer(list(data.val_dataloader())[1], 0)
    (image, *_), (found, *_) = batch.coco, truth_of(data, "val")[1][1:]
    (drawing,) = task.draw(batch, [found])
    assert isinstance(drawing, InstanceDrawing)
    ((category, mask),) = scene(9)[1]
    label = data.category_ids.index(category) + 1
    assert drawing.labels == {0: "background", 1: "disc", 2: "square"}
    for side in ("prediction", "ground_truth"):
        assert (drawing.masks[side] == np.where(mask, label, 0)).all()
        assert drawing.boxes[side][0].label == label
    assert drawing.results[0]["image_id"] == image.id
    assert (drawing.photograph == scene(9)[0]).all()


def test_annotations_become_objects_without_crowds() -> None:
    image = CocoImage(1, "a.png", 40, 60)
    polygons = CocoAnnotation(1, 1, 9, (5, 10, 40, 20), 800, False, [[5, 10, 45, 10, 45, 30, 5, 30]])
    crowd = CocoAnnotation(2, 1, 9, (0, 0, 60, 40), 2400, True, [[0, 0, 60, 0, 60, 40]])
    found = Found.annotated(image, [polygons, crowd], [4, 9])
    assert (len(found), found.labels.tolist(), found.boxes.tolist()) == (1, [1], [[5, 10, 45, 30]])
    assert next(iter(found.bitmaps())).sum() == 800
    boxes = Found.annotated(image, [CocoAnnotation(1, 1, 9, (5, 10, 40, 20), 800)], [9])
    assert boxes.masks is None


def test_a_prediction_is_overlays_and_one_file_that_scores_as_the_run_did(data: COCOInstances, tmp_path: Path) -> None:
    task = new_task(data, score_threshold=0.0)
    run = trainer(tmp_path, callbacks=[PredictionWriter()])
    run.validate(task, datamodule=data, verbose=False)
    run.predict(task, datamodule=data)
    folder = tmp_path / "predictions"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(f"{number}_overlay.jpg" for number in range(8, 12)), "predictions.json"]
    )
    results = json.loads((folder / "predictions.json").read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data.file("val").path))
        for each in results:
            del each["bbox"]
        judge = COCOeval(truth, truth.loadRes(results), "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert task.reports["val"].figures["mask_AP"] == pytest.approx(judge.stats[0], abs=1e-9)
    assert task.reports["val"].figures["mask_AR100"] == pytest.approx(judge.stats[8], abs=1e-9)
    assert len(results) > 50


@pytest.mark.slow
def test_samples_show_masks_and_boxes_in_wandb(
    data: COCOInstances, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=str(tmp_path))
    task = new_task(data, score_threshold=0.0)
    trainer(tmp_path, logger=logger, callbacks=[WandbReport()]).validate(task, datamodule=data, verbose=False)
    wandb.finish()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    kinds = [path for path in folder.rglob("*.json") if "boxes2D" in str(path)]
    assert len(kinds) >= 4
    contents = [json.loads(path.read_text())["box_data"] for path in kinds]
    box = next(boxes[0] for boxes in contents if boxes)
    assert 0 <= box["position"]["minX"] <= box["position"]["maxX"] <= 1.01
    assert any("mask" in str(path) for path in folder.rglob("*.png"))
