"""Training and evaluation of keypoints: what is found, counted, drawn and written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pose_fakes import NAMES, changed, fake_keypoints
from tiny import tiny_trainer
from torch import Tensor

from lightning_app.backbones.timm import TimmBackbone
from lightning_app.callbacks import PredictionWriter
from lightning_app.data import COCOKeypoints
from lightning_app.data.pose.affine import transform, warps
from lightning_app.data.pose.augment import Augmentation
from lightning_app.data.pose.base import PoseBatch
from lightning_app.heads.fcn import FCN
from lightning_app.tasks.pose.codec import Codec
from lightning_app.tasks.pose.task import PoseTask


def tiny_pose(data: COCOKeypoints, **options: object) -> PoseTask:
    """The first stage of a resnet10t with one convolution, for crops of 64 x 48."""
    torch.manual_seed(0)
    return PoseTask(
        TimmBackbone("resnet10t", out_indices=[1]),
        lambda in_channels, maps: FCN(in_channels, maps, channels=16, num_convs=1, concat_input=False, dropout=0),
        keypoint_names=data.keypoint_names,
        skeleton=data.skeleton,
        flip_pairs=data.flip_pairs,
        sigmas=data.sigmas,
        **{"codec": Codec("udp", (64, 48)), "optimizer": "adamw", "lr": 1e-2, **options},
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fake_keypoints(tmp_path / "animals")


def data_of(root: Path, **options: object) -> COCOKeypoints:
    return COCOKeypoints(root, num_workers=0, batch_size=2, **options)


def true_maps(task: PoseTask, batch: PoseBatch) -> Tensor:
    """The maps that a network would give which knew the truth."""
    assert batch.truth is not None
    size = task.codec.input_size
    maps = []
    for place, (centre, scale) in enumerate(zip(batch.centres, batch.scales, strict=True)):
        photograph = next(i for i, inside in enumerate(batch.places) if inside.start <= place < inside.stop)
        marked = torch.tensor(batch.truth[photograph][0].keypoints).reshape(-1, 3)
        points = transform(marked[:, :2], warps(centre, scale, size, udp=task.codec.udp))
        maps.append(task.codec.encode(points[None], marked[None, :, 2].clamp(max=1))[0][0])
    return torch.stack(maps)


@pytest.mark.parametrize("kind", ["msra", "dark", "udp", "udp_combined"])
def test_who_knows_the_maps_finds_the_points_in_the_photograph(
    root: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(content: dict) -> None:
        content["annotations"].append(content["annotations"][0] | {"id": 99})

    changed(root, "val", twice)  # one animal with two boxes is found once
    data = data_of(root)
    task = tiny_pose(data, codec=Codec(kind, (192, 144)))
    data.follow(task.codec.input_size, udp=task.codec.udp)
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    monkeypatch.setattr(task.network, "maps", lambda crops, flip_indices: true_maps(task, batch))
    poses = task.predict(batch)
    assert [len(each) for each in poses] == [1, 1, 1, 1]
    error = {"msra": 0.5, "dark": 0.1}.get(kind, 0.02)  # pixels; a map has 2.5 for each
    for each, truth in zip(poses, batch.truth, strict=True):
        marked = np.array(truth[0].keypoints).reshape(-1, 3)
        assert abs(each.keypoints[0] - marked[:, :2]).max() < error


def test_a_training_learns_and_is_reported(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_of(root, augmentation=Augmentation(rotation=20, scale=(0.9, 1.1)))
    task = tiny_pose(data, schedule="constant")
    trainer = tiny_trainer(root.parent, max_epochs=20, callbacks=[])
    trainer.fit(task, data)
    (report,) = (task.reports["val"],)
    assert report.figures["AP50"] > 0.5
    assert report.figures["PCK"] > 0.6
    assert "4 marked, 4 found (animal, in ground-truth boxes)" in report.summary
    assert report.names == NAMES


def test_every_photograph_is_counted_with_and_without_boxes(root: Path) -> None:
    (root / "boxes.json").write_text('[{"image_id": 7, "category_id": 3, "bbox": [1, 1, 40, 40], "score": 0.5}]')
    data = data_of(root, boxes=Path("boxes.json"), val_batch_size=1)
    task = tiny_pose(data)
    tiny_trainer(root.parent, callbacks=[]).test(task, data, verbose=False)
    report = task.reports["test"]
    assert report.counts == {"images": 4, "marked": 4, "found": 1}
    assert "in the boxes of boxes.json" in report.summary


def test_predictions_are_drawn_and_written_as_results(root: Path) -> None:
    data = data_of(root, predict_folder=root / "images")
    task = tiny_pose(data)
    trainer = tiny_trainer(root.parent, callbacks=[PredictionWriter(root / "out")])
    trainer.predict(task, data, return_predictions=False)
    assert len(list((root / "out").glob("*_overlay.jpg"))) == 10
