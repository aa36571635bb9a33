"""Detectors on the command line, as people type it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
import yaml
from callbacks.test_wandb import Offline
from commands import logged, run, typed
from instances import write_coco, write_masks
from test_instance_weights import TINY

PLAIN = {**TINY, "model": {**TINY["model"], "pyramid": "fpn"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, the configuration, and a run of two epochs."""
    folder = tmp_path_factory.mktemp("instance")
    write_coco(folder / "shapes")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(PLAIN))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("fit -c tiny.yaml --run whole --trainer.max_epochs 2") == 0
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_a_resumed_run_is_the_run() -> None:
    """Ended after its first epoch and resumed, boxes are drawn to learn from as the whole run drew them."""
    assert run("fit -c tiny.yaml --run half --trainer.max_epochs 1") == 0
    assert run("fit --run half --ckpt_path last --trainer.max_epochs 2") == 0
    losses = [*logged(Path("runs/half"), "train/loss"), *logged(Path("runs/half"), "train/loss", version=1)]
    np.testing.assert_allclose(losses, logged(Path("runs/whole"), "train/loss"), rtol=1e-5)
    whole, half = (torch.load(f"runs/{name}/checkpoints/last.ckpt")["state_dict"] for name in ("whole", "half"))
    for name, tensor in whole.items():
        torch.testing.assert_close(half[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_a_checkpoint_says_all_that_a_test_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("test --ckpt_path best --run whole") == 0
    assert "4 images, each counted once, with 6 objects and 0 crowds. Mask AP" in capsys.readouterr().out
    report = json.loads(Path("runs/whole/test.json").read_text())
    assert report["mask_AP"] == pytest.approx(max(logged(Path("runs/whole"), "val/mask_AP")), abs=1e-6)
    assert [each["name"] for each in report["classes"]] == ["disc", "square"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--data.root nowhere", "nowhere does not exist: the root of the data"),
        ("--data.classes [disc,cube]", "cube"),
        ("--data.scale [2,1]", "scale 2.0, 1.0"),
        ("--data.image_size [64,48]", "image_size 64, 48: give the longest short and long side"),
        ("--model.pyramid pafpn", "pafpn"),
        ("--model.anchor_scale 0", "anchor_scale 0.0: give a number above 0"),
        ("--model.score_threshold 7", "score_threshold 7.0: give a score from 0 to 1"),
        ("--model.hiden 8", 'Did you mean "--model.hidden"?'),
        ("--model.backbone.output_stride 8", "a pyramid needs each twice the one before"),
        ("--data COCOKeypoints", "COCOKeypoints"),
        ("--task pose", "for the task"),
        ("--model.weights nowhere", 'Unknown weights "nowhere"'),
    ],
)
def test_bad_input_is_one_line(words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"fit -c tiny.yaml --run bad {words}") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert line in said[-1]
    assert not Path("runs/bad").exists()


def test_numbered_masks_train_without_json(capsys: pytest.CaptureFixture[str]) -> None:
    write_masks(Path("numbered"))
    data = "-c data/folder_instances --data.root numbered --data.image_size [48,64] --data.num_workers 0"
    model = "--model.backbone.name resnet10t --model.channels 8 --model.hidden 8"
    steps = "--trainer.max_epochs 1 --trainer.limit_train_batches 1 --trainer.accelerator cpu"
    assert run(f"fit {data} {model} {steps} --run numbered") == 0
    out = capsys.readouterr().out
    assert "object" in out
    assert "Mask AP" in out


@pytest.mark.slow
def test_two_devices_count_each_picture_once(folder: Path) -> None:
    two = "--trainer.devices 2 --trainer.strategy ddp"
    done = typed(f"test --ckpt_path runs/whole/checkpoints/best.ckpt --run two {two}", folder)
    assert done.returncode == 0, done.stderr
    assert "4 images, each counted once over 2 devices, with 6 objects and 0 crowds" in done.stdout
    assert run("test --ckpt_path runs/whole/checkpoints/best.ckpt --run one") == 0
    one, both = (json.loads((folder / f"runs/{name}/test.json").read_text()) for name in ("one", "two"))
    assert both["mask_AP"] == pytest.approx(one["mask_AP"], abs=1e-9)
    assert both["classes"] == one["classes"]
    trained = typed(f"fit -c tiny.yaml --run both --data.batch_size 2 {two}", folder)
    assert trained.returncode == 0, trained.stderr
    assert len(logged(folder / "runs/both", "train/loss")) == 2


@pytest.mark.slow
def test_wandb_has_losses_figures_of_classes_and_samples(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for variable in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(folder))
    assert run("fit -c tiny.yaml -c logger/wandb --run tracked --model.score_threshold 0") == 0
    wandb.finish()
    (record,) = map(Offline, Path("runs/tracked/wandb").glob("offline-run-*"))
    logged_names = {name for item in record.history for name in item}
    terms = {f"train/{name}" for name in ("loss", "rpn_objectness", "rpn_box", "class", "box", "mask")}
    of_classes = {f"val/{kind}_AP/{name}" for kind in ("mask", "box") for name in ("disc", "square")}
    assert logged_names >= terms | of_classes | {"val/mask_AP", "val/box_AP", "val/samples.count"}
    (samples,) = (item for item in record.history if "val/samples.count" in item)
    assert samples["val/samples.captions"] == ["8.png", "9.png", "10.png", "11.png"]
    assert samples["val/samples.all_masks"][0].keys() == {"prediction", "ground_truth"}
    assert samples["val/samples.all_boxes"][0].keys() == {"prediction", "ground_truth"}
