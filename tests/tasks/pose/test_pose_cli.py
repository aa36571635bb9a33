"""Keypoints on the command line, as people type it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
import yaml
from callbacks.test_wandb import Offline
from commands import logged, run, typed
from PIL import Image
from pose_fakes import NAMES, changed, fake_keypoints

TINY = {
    "task": "pose",
    "model": {
        "backbone": {"class_path": "TimmBackbone", "init_args": {"name": "resnet10t", "out_indices": [1]}},
        "head": {
            "class_path": "FCN",
            "init_args": {"channels": 8, "num_convs": 1, "concat_input": False, "dropout": 0.0},
        },
        "codec": {"kind": "udp", "input_size": [64, 48]},
        "optimizer": "adamw",
        "schedule": "constant",
        "lr": 0.01,
    },
    "data": {
        "class_path": "COCOKeypoints",
        "init_args": {"root": "animals", "batch_size": 2, "val_batch_size": 2, "num_workers": 0},
    },
    "trainer": {"accelerator": "cpu", "max_epochs": 2, "log_every_n_steps": 1},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, the configuration and one run."""
    folder = tmp_path_factory.mktemp("pose")
    fake_keypoints(folder / "animals")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("fit -c tiny.yaml --run a") == 0
    return folder


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


def test_a_checkpoint_says_all_that_a_test_needs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = logged(here / "runs/a", "val/AP")
    assert run("test --ckpt_path best --run a") == 0
    out = capsys.readouterr().out
    assert "4 images, each counted once: 4 marked, 4 found (animal, in ground-truth boxes)" in out
    report = json.loads((here / "runs/a/test.json").read_text())
    assert report["AP"] == pytest.approx(max(best), abs=1e-6)
    assert [each["name"] for each in report["keypoints"]] == NAMES


def test_where_was_looked_is_said_beside_each_score(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("test --ckpt_path best --run a --data.boxes whole") == 0
    assert "in whole pictures). AP" in capsys.readouterr().out
    found = [{"image_id": 8, "category_id": 3, "bbox": [1, 2, 40, 40], "score": 0.7}]
    (here / "animals/found.json").write_text(json.dumps(found))
    assert run("test --ckpt_path best --run a --data.boxes found.json") == 0
    assert "4 marked, 1 found (animal, in the boxes of found.json). AP" in capsys.readouterr().out


def test_predictions_are_drawn_and_are_results_of_coco(here: Path) -> None:
    shutil.rmtree(here / "photos", ignore_errors=True)
    shutil.copytree(here / "animals/images", here / "photos")
    assert run("predict --ckpt_path best --run a --data.predict_folder photos") == 0
    folder = here / "runs/a/predictions"
    assert len(list(folder.glob("*_overlay.jpg"))) == 10
    results = json.loads((folder / "predictions.json").read_text())
    assert len(results) == 10
    assert {each["category_id"] for each in results} == {3}
    assert all(len(each["keypoints"]) == 3 * len(NAMES) for each in results)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--data.boxes nowhere.json", "nowhere.json: No such file"),
        ("--data.augmentation.flip 2", "augmentation.flip is 2.0: give a share from 0 to 1"),
        ("--data.augmentation.scale [2,1]", "augmentation.scale 2.0, 1.0"),
        ("--model.codec.kind upd", 'Did you mean "udp"?'),
        ("--model.codec.input_size [0,48]", "input_size"),
        ("--data.sigmas [0.1]", "1 sigmas for 4 keypoints"),
        ("--data.flip_pairs [[0,9]]", "flip_pairs [0, 9]"),
        ("--model.flip_tst false", 'Did you mean "--model.flip_test"?'),
        ("--data.category dog", 'has no keypoints of "dog"'),
        ("--task semantic", "for the task"),
        ("--data CamVid", "CamVid"),
    ],
)
def test_bad_input_is_one_line(here: Path, words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"fit -c tiny.yaml --run bad {words}") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert line in said[-1]
    assert not Path("runs/bad").exists()


def test_data_of_other_keypoints_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = here / "other"
    if not other.exists():
        fake_keypoints(other)

        def fewer(content: dict) -> None:
            content["categories"][0] |= {"keypoints": NAMES[:3], "skeleton": []}
            content["info"] = {}
            for each in content["annotations"]:
                each["keypoints"] = each["keypoints"][:9]

        for split in ("train", "val"):
            changed(other, split, fewer)
    assert run("test --ckpt_path best --run a --data.root other") == 2
    assert "4 keypoint names" in capsys.readouterr().err


def test_a_resumed_run_is_the_run(here: Path) -> None:
    """Ended after its first epoch and resumed, it logs what the whole run logged."""
    whole = logged(here / "runs/a", "train/loss")
    assert run("fit -c tiny.yaml --run b --trainer.max_epochs 1") == 0
    assert run("fit --run b --ckpt_path last --trainer.max_epochs 2") == 0
    first, second = (logged(here / "runs/b", "train/loss", version) for version in (0, 1))
    assert (len(first), len(second)) == (3, 3)
    np.testing.assert_allclose(first + second, whole, rtol=1e-4)


@pytest.mark.slow
def test_two_devices_count_each_photograph_once(here: Path) -> None:
    one = json.loads((here / "runs/a/test.json").read_text()) if (here / "runs/a/test.json").exists() else None
    done = typed(
        "test --ckpt_path runs/a/checkpoints/best.ckpt --run two --trainer.devices 2 --trainer.strategy ddp", here
    )
    assert done.returncode == 0, done.stderr
    assert "4 images, each counted once over 2 devices: 4 marked, 4 found" in done.stdout
    report = json.loads((here / "runs/two/test.json").read_text())
    assert one is None or report["AP"] == pytest.approx(one["AP"], abs=1e-6)
    assert torch.isfinite(torch.tensor(report["PCK"]))


@pytest.mark.slow
def test_wandb_has_figures_of_keypoints_and_skeletons_on_samples(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for variable in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(here))
    assert run("fit -c tiny.yaml -c logger/wandb --run tracked") == 0
    wandb.finish()
    (record,) = map(Offline, Path("runs/tracked/wandb").glob("offline-run-*"))
    names = {name for item in record.history for name in item}
    assert names >= {"train/loss", "val/AP", "val/AR", "val/PCK", *(f"val/PCK@0.1/{name}" for name in NAMES)}
    first, second = (item for item in record.history if "val/samples.count" in item)
    assert first["val/samples.captions"] == second["val/samples.captions"]
    assert len(first["val/samples.captions"]) == 4
    pictures = sorted((record.folder / "files/media/images/val").glob("samples_*.png"))
    assert len(pictures) == 8
    plain = np.asarray(Image.open(here / "animals/images/val_7.png"))
    drawn = np.asarray(Image.open(pictures[0]).convert("RGB").resize((plain.shape[1], plain.shape[0])))
    assert abs(drawn.astype(int) - plain).max() > 50  # a skeleton is on it


@pytest.mark.slow
def test_two_devices_learn_what_one_learns(here: Path) -> None:
    """Without batch norms, whose statistics each device has for itself."""
    same = (
        "fit -c tiny.yaml --model.backbone.name test_convnext --model.backbone.out_indices [0] "
        "--model.head.num_convs 0 --model.head.channels 24 --model.optimizer sgd"
    )
    one = typed(f"{same} --run one --data.batch_size 2", here)
    two = typed(f"{same} --run both --data.batch_size 1 --trainer.devices 2 --trainer.strategy ddp", here)
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    alone, both = (torch.load(here / f"runs/{name}/checkpoints/last.ckpt")["state_dict"] for name in ("one", "both"))
    for name, tensor in alone.items():
        torch.testing.assert_close(both[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
