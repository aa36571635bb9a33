"""A second task, in a file of a user's own, through every verb of the command line and every callback."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
import yaml
from callbacks.test_wandb import Offline
from commands import TESTS, logged, run
from tasks.heatmaps import HeatmapTask, Scenes
from tiny import tiny_trainer

from lightning_app.backbones.patchify import Patchify
from lightning_app.heads.ccnet import CCNet
from lightning_app.registry import TASKS
from lightning_app.util.errors import InputError

FIT = (
    "fit --task heatmaps --data Scenes --data.batch_size 2 --data.num_workers 0 -c backbone/patch8 "
    "--model.backbone.channels 8 --model.head FCN --model.head.channels 8 --model.schedule constant "
    "--trainer.accelerator cpu --trainer.devices 1 --trainer.log_every_n_steps 1"
)
RUN = Path("runs", "maps")
BEST = RUN / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run of two epochs lies, which W&B has seen."""
    folder = tmp_path_factory.mktemp("maps")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        for variable in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
            patch.setenv(variable, str(folder))
        assert run(f"{FIT} -c logger/wandb --trainer.max_epochs 2 --run maps") == 0
        wandb.finish()
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of that run's folder."""
    shutil.copytree(folder / RUN, tmp_path / RUN, ignore=shutil.ignore_patterns("wandb"))
    monkeypatch.chdir(tmp_path)


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def test_fit_keeps_what_has_least_of_the_tasks_figure(folder: Path) -> None:
    saver = yaml.safe_load((folder / RUN / "config.yaml").read_text())["trainer"]["callbacks"][0]["init_args"]
    assert (saver["monitor"], saver["mode"]) == ("val/rmse", "min")
    assert torch.load(BEST, weights_only=True)["config"]["task"] == "heatmaps"


def test_wandb_has_its_losses_its_table_its_pictures_and_its_best(folder: Path) -> None:
    (record,) = map(Offline, (folder / RUN / "wandb").glob("offline-run-*"))
    figures = [item["val/rmse"] for item in record.history if "val/rmse" in item]
    assert len(figures) == 2
    terms = [item for item in record.history if "train/cells" in item]
    for item in terms:
        assert item["train/loss"] == pytest.approx(item["train/cells"] + item["train/size"], rel=1e-5)
    assert len(terms) == 6
    (samples, _) = (item for item in record.history if "val/samples.count" in item)
    assert samples["val/samples.captions"] == [f"scenes/{number}.png" for number in range(100, 105)]
    assert samples["val/samples.all_masks"][0].keys() == {"prediction", "ground_truth"}
    labels = record.config["_wandb"]["mask/class_labels"]["val/samples_wandb_delimeter_ground_truth"]["value"]
    assert labels == {"0": "none", "1": "rows", "2": "columns"}
    (artifact,) = record.artifacts
    told = json.loads(artifact["metadata"])
    assert (told["monitor"], told["score"]) == ("val/rmse", pytest.approx(min(figures)))


def test_validate_and_test_need_no_word_of_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("validate --ckpt_path best") == 0
    assert run("test --ckpt_path best --data.batch_size 1") == 0
    assert capsys.readouterr().out.count("2 maps, rmse ") == 2
    found = json.loads((RUN / "validate.json").read_text())
    assert [row["name"] for row in found["maps"]] == ["rows", "columns"]
    assert found["rmse"] == pytest.approx(sum(row["rmse"] for row in found["maps"]) / 2)
    best = torch.load(BEST, weights_only=True)["callbacks"]["ClassTable"]["report"]["figures"]
    assert found["rmse"] == pytest.approx(best["rmse"], abs=1e-6)
    assert json.loads((RUN / "test.json").read_text())["rmse"] != found["rmse"]  # other images


def test_predict_names_a_broken_file_and_draws_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict --ckpt_path best --data.broken true") == 1
    assert capsys.readouterr().err == "scene 200 is damaged\n"
    drawn = sorted(path.name for path in (RUN / "predictions" / "scenes").iterdir())
    assert drawn == ["201_overlay.jpg", "202_overlay.jpg"]


def test_a_resumed_run_ends_like_a_whole_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"{FIT} --trainer.max_epochs 1 --run half") == 0
    assert run("fit --run half --ckpt_path last --trainer.max_epochs 2") == 0
    assert "Resuming runs/half at step 3. You override: trainer.max_epochs 1 -> 2." in capsys.readouterr().out
    assert len(logged(Path("runs/half"), "train/loss", version=1)) == 3
    whole = weights(RUN / "checkpoints" / "last.ckpt")
    for name, tensor in weights(Path("runs/half/checkpoints/last.ckpt")).items():
        assert torch.equal(tensor, whole[name]), name


def test_a_misspelt_option_and_other_data_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"{FIT} --model.sharpnes 3") == 2
    assert 'Did you mean "--model.sharpness"?' in capsys.readouterr().err
    assert run("test --ckpt_path best --data.textures 3") == 2
    assert capsys.readouterr().err == f"{BEST} has 2 map names, Scenes has 3: give the data it was trained on\n"


def test_it_is_known_once_it_is_imported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    own = (TESTS / "tasks" / "heatmaps.py").read_text()
    for old, new in (("heatmaps", "grids"), ("HeatmapTask", "SpotTask"), ("Scenes(", "SpotScenes(")):
        own = own.replace(old, new)
    Path("own_grids.py").write_text(own.replace("data = Scenes", "data = SpotScenes"))
    short = "--trainer.limit_train_batches 1 --trainer.max_epochs 1 --run grids"
    typed = FIT.replace("heatmaps", "grids").replace("Scenes", "SpotScenes")
    assert run(f"{typed} {short}") == 2
    assert capsys.readouterr().err == 'Unknown task "grids". (one of heatmaps, instance, pose, semantic)\n'
    assert run(f"{typed.replace('fit', 'fit --import own_grids', 1)} {short}") == 0
    assert run("test --import own_grids --run grids --ckpt_path best") == 0
    monkeypatch.delenv("CONTEXTZOO_IMPORT")
    monkeypatch.delitem(TASKS._classes, "grids")  # as in a process that was not told of it
    capsys.readouterr()
    assert run("test --run grids --ckpt_path best") == 2
    error = capsys.readouterr().err
    assert "its task is 'grids', which is none of this program" in error
    assert "--import MODULE" in error
    assert error.count("\n") == 1


def test_help_tells_of_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit --task heatmaps --help") == 0
    assert "weight of the cells that are 1. [2.0]" in capsys.readouterr().out


def test_made_again_in_python() -> None:
    task = HeatmapTask.load_from_checkpoint(BEST)
    assert task.map_names == ["rows", "columns"]
    assert all(torch.equal(tensor, task.state_dict()[name]) for name, tensor in weights(BEST).items())
    content: dict[str, Any] = torch.load(BEST, weights_only=True)
    content["config"]["model"]["sharpnes"] = 1
    torch.save(content, "a.ckpt")
    with pytest.raises(InputError, match="its model has no sharpnes"):
        HeatmapTask.load_from_checkpoint("a.ckpt")


def test_a_checkpoint_of_a_trainer_in_python_says_its_parts() -> None:
    data = Scenes(batch_size=2, num_workers=0)
    task = HeatmapTask(Patchify(8, 8), lambda i, n: CCNet(i, n, channels=8), map_names=data.map_names, sharpness=3.0)
    trainer = tiny_trainer(Path(), callbacks=[], max_epochs=1, limit_val_batches=0)
    trainer.fit(task, data)
    trainer.save_checkpoint("mine.ckpt")
    again = HeatmapTask.load_from_checkpoint("mine.ckpt")
    assert isinstance(again.network.head, CCNet)
    assert again.sharpness == 3.0
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in task.state_dict().items())
    assert run(f"validate --ckpt_path {Path('mine.ckpt').absolute()} --trainer.accelerator cpu --run v") == 0
    assert Path("runs/v/validate.json").is_file()
