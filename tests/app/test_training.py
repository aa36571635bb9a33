"""Runs: resumed after a kill, on two processes, with averaged weights; what stops one, and how it is optimised."""

import platform
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
import yaml
from commands import PROBE, logged, run, typed
from data.make_fakes import camvid
from tiny import NoiseData, tiny_task, tiny_trainer
from torch import nn

from lightning_app.data import ContextProbe
from lightning_app.data.base import Stage
from lightning_app.data.semantic.base import SegmentationDataset
from lightning_app.data.semantic.class_weights import balanced_weights
from lightning_app.tasks.semantic.losses import OHEM
from lightning_app.tasks.semantic.task import SegmentationTask

FIT = f"fit {PROBE}"
LAST = "checkpoints/last.ckpt"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")  # restored after the test


def checkpoint(name: str, file: str = LAST) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(Path("runs", name, file), weights_only=True)
    return content


def assert_same_weights(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name


def write_config(name: str, **content: Any) -> None:
    Path(name).write_text(yaml.safe_dump(content))


# Resuming


CAMVID = (
    "fit -c backbone/patch8 --model.backbone.channels 8 --model.head FCN --model.head.channels 8 "
    "--model.head.dropout 0.5 --model.schedule onecycle --data CamVid --data.root camvid --data.crop_size [24,32] "
    "--data.batch_size 2 --trainer.accelerator cpu --trainer.max_epochs 4 -c every_step.yaml"
)
SAVES = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {"save_top_k": 0, "save_last": True, "every_n_train_steps": 1, "enable_version_counter": False},
}


@pytest.mark.parametrize(
    ("workers", "options"),
    [
        (1, "-c schedule/ema"),
        pytest.param(0, "", marks=pytest.mark.slow),
        pytest.param(0, "--model.freeze backbone", marks=pytest.mark.slow),
    ],
    ids=["averaging", "plain", "frozen"],
)
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, workers: int, options: str) -> None:
    camvid(tmp_path / "camvid")  # 5 images, so 2 steps an epoch and one image left over
    write_config("every_step.yaml", trainer={"callbacks+": [SAVES]})
    write_config("killed.yaml", trainer={"callbacks+": [{"class_path": "killed.KilledAt", "init_args": {"steps": 5}}]})
    command = f"{CAMVID} --data.num_workers {workers} {options}"
    assert run(f"{command} --run whole") == 0

    done = typed(f"{command} -c killed.yaml --trust --run killed", tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert checkpoint("killed")["global_step"] == 5  # one of the two steps of the third epoch
    assert run(f"{command} --trust --run killed --ckpt_path last") == 0

    whole, killed = checkpoint("whole"), checkpoint("killed")
    assert whole["global_step"] == killed["global_step"] == 8
    assert_same_weights(whole, killed)


@pytest.mark.parametrize("options", ["", "-c schedule/ema"], ids=["plain", "averaging"])
def test_the_last_checkpoint_is_the_end_of_the_run(options: str) -> None:
    """Though it was due at step 100, and the only validation, which was the best, has long been."""
    assert run(f"{FIT} --run a {options} --trainer.max_epochs 35 --trainer.check_val_every_n_epoch 20") == 0
    best, last = checkpoint("a", "checkpoints/best.ckpt"), checkpoint("a")
    assert (best["global_step"], last["global_step"]) == (60, 105)
    assert ("current_model_state" in last) == (options != "")
    assert run("fit --run a --ckpt_path last --trainer.max_epochs 36") == 0
    resumed = checkpoint("a")
    assert resumed["global_step"] == 108
    assert ("current_model_state" in resumed) == (options != "")  # it goes on to average


def test_a_run_that_ends_before_its_first_validation_validates_in_its_last_epoch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(f"{FIT} --run short --trainer.check_val_every_n_epoch 5") == 0  # two epochs
    assert "mIoU" in capsys.readouterr().out.splitlines()[-1]
    assert len(logged(Path("runs/short"), "val/mIoU")) == 1
    assert checkpoint("short", "checkpoints/best.ckpt")["epoch"] == 1


def test_without_a_logger() -> None:
    assert run(f"{FIT} --run quiet --trainer.logger false --trainer.max_epochs 1") == 0
    assert not list(Path("runs/quiet").rglob("*.csv"))


def test_resuming_needs_no_other_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"{FIT} --run a --trainer.precision bf16-mixed --trainer.max_steps 4 --trainer.max_epochs -1") == 0
    assert run("fit --run a --ckpt_path last --trainer.max_steps 7") == 0
    assert "Resuming runs/a at step 4. You override: trainer.max_steps 4 -> 7." in capsys.readouterr().out
    assert checkpoint("a")["global_step"] == 7
    config = yaml.safe_load(Path("runs/a/config-2.yaml").read_text())
    assert config["trainer"]["precision"] == "bf16-mixed"
    assert config["trainer"]["log_every_n_steps"] == 1


@pytest.mark.parametrize("schedule", ["poly", "onecycle", "constant"])
def test_what_is_typed_wins_over_the_checkpoint(schedule: str, capsys: pytest.CaptureFixture[str]) -> None:
    middle = {"save_top_k": -1, "filename": "{step}", "every_n_train_steps": 6}
    write_config("middle.yaml", trainer={"callbacks+": [SAVES | {"init_args": middle}]})
    command = f"{FIT} --model.schedule {schedule} --model.backbone_lr 0.5 --trainer.max_epochs 4 -c middle.yaml"
    assert run(f"{command} --run whole") == 0
    capsys.readouterr()
    overrides = "--model.lr 0.001 --model.weight_decay 0.25"
    assert run(f"fit --run again --ckpt_path runs/whole/checkpoints/step=6.ckpt {overrides}") == 0
    said = "Resuming runs/whole at step 6. You override: model.lr 0.01 -> 0.001, model.weight_decay 0.0005 -> 0.25."
    assert said in capsys.readouterr().out
    for group in ("head", "backbone"):
        whole, again = (logged(Path("runs", run), f"lr-SGD/{group}") for run in ("whole", "again"))
        assert len(whole) == 12
        assert again == pytest.approx([rate / 10 for rate in whole[6:]])
    groups = checkpoint("again")["optimizer_states"][0]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.25}


def test_a_longer_one_cycle_goes_on_over_the_new_length() -> None:
    assert run(f"{FIT} --model.schedule onecycle --run a") == 0
    assert run("fit --run a --ckpt_path last --trainer.max_epochs 4") == 0
    assert run(f"{FIT} --model.schedule onecycle --trainer.max_epochs 4 --run whole") == 0
    whole, again = logged(Path("runs/whole"), "lr-SGD/head"), logged(Path("runs/a"), "lr-SGD/head", version=1)
    assert again[1:] == pytest.approx(whole[7:])  # its first rate was set by the schedule that has ended


def test_what_a_resumed_run_cannot_change(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"{FIT} --run a --trainer.max_epochs 1") == 0
    assert run("fit --run a --ckpt_path last --trainer.max_epochs 2 --model.optimizer adamw") == 2
    assert "model.optimizer sgd -> adamw: a resumed run keeps it" in capsys.readouterr().err
    assert run("fit --run a --ckpt_path last --trainer.max_epochs 2 --model.freeze backbone") == 2
    assert "model.freeze None -> backbone: a resumed run keeps it" in capsys.readouterr().err


def test_averaged_weights_are_what_is_validated_and_kept() -> None:
    assert run(f"{FIT} -c schedule/ema --model.optimizer adamw --model.lr 0.05 --trainer.max_epochs 6 --run a") == 0
    best = checkpoint("a", "checkpoints/best.ckpt")
    raw = best["current_model_state"]
    assert any(not torch.equal(value, raw[name]) for name, value in best["state_dict"].items())
    assert run("validate --run a --ckpt_path best --trainer.accelerator cpu") == 0
    (loss,) = logged(Path("runs/a"), "val/loss", version=1)
    epoch = logged(Path("runs/a"), "val/mIoU").index(max(logged(Path("runs/a"), "val/mIoU")))
    assert loss == pytest.approx(logged(Path("runs/a"), "val/loss")[epoch])


@pytest.mark.slow
def test_training_on_two_processes(tmp_path: Path) -> None:
    done = typed(f"{FIT} --trainer.devices 2 --trainer.strategy ddp --run a", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("FCN on Patchify") == 1
    assert "5 images, each counted once over 2 devices." in done.stdout
    assert logged(tmp_path / "runs" / "a", "val/images") == [5, 5]
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"a"}
    assert [path.name for path in (tmp_path / "runs" / "a").glob("config*")] == ["config.yaml"]


# What goes wrong


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AVX2 is of x86 processors")
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "said"), [("bf16-mixed", True), ("32-true", False)])
def test_slow_bf16_is_said(precision: str, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    done = typed(f"fit {PROBE} --trainer.max_epochs 1 --trainer.precision {precision}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert ("add --trainer.precision 32-true" in done.stderr) is said


def test_a_loss_that_is_not_finite_stops_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"{FIT} --model.lr 1e30 --run a") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "The loss is nan at step" in error
    assert error.count("context_probe/") == 2  # the files of the batch
    assert "lower model.lr" in error


class Unlabelled(NoiseData):
    def make_dataset(self, stage: Stage) -> SegmentationDataset:
        dataset = super().make_dataset(stage)
        if stage == "train":
            dataset.masks = False
        return dataset

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if batch.mask is None:
            batch.mask = torch.full((len(batch.image), *batch.sizes[0]), 255)
        return batch


@pytest.mark.parametrize("loss", ["cross_entropy", "ohem", "dice", "focal", "lovasz"])
def test_batches_that_are_all_ignored_train_on(tmp_path: Path, loss: str) -> None:
    task = tiny_task(loss={loss: 1.0}, weight_decay=0.0)
    before = {name: value.clone() for name, value in task.named_parameters()}
    trainer = tiny_trainer(tmp_path, callbacks=[], max_steps=2, limit_val_batches=0)
    trainer.fit(task, datamodule=Unlabelled())
    assert trainer.callback_metrics["train/loss"] == 0
    assert all(torch.equal(value, before[name]) for name, value in task.named_parameters())


# How it is optimised


def rates(steps: int = 100, **options: Any) -> dict[str, list[float]]:
    """Learning rate of each parameter group at each step."""
    task = tiny_task(lr=0.1, **options)
    task.trainer = SimpleNamespace(estimated_stepping_batches=steps)
    configured: Any = task.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]
    assert schedule["interval"] == "step"
    seen: dict[str, list[float]] = {group["name"]: [] for group in optimizer.param_groups}
    for _ in range(steps):
        for group in optimizer.param_groups:
            seen[group["name"]].append(group["lr"])
        optimizer.step()
        schedule["scheduler"].step()
    return seen


def test_poly_falls_to_its_end_by_the_power() -> None:
    head = rates(min_lr=0.01, poly_power=0.9)["head"]
    assert head[0] == pytest.approx(0.1)
    assert head[50] == pytest.approx(0.1 * (0.01 + 0.99 * 0.5**0.9))
    assert head[99] == pytest.approx(0.1 * (0.01 + 0.99 * 0.01**0.9))


def test_poly_warms_up_linearly() -> None:
    head = rates(warmup_steps=4)["head"]
    assert head[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert head[52] == pytest.approx(0.1 * 0.5**0.9)


@pytest.mark.parametrize(("warmup", "top"), [(None, 29), (10, 9)])
def test_one_cycle_peaks_at_lr(warmup: int | None, top: int) -> None:
    head = rates(schedule="onecycle", warmup_steps=warmup)["head"]
    assert max(head) == pytest.approx(0.1)
    assert head.index(max(head)) == top
    assert head[-1] < 1e-5


def test_constant_stays() -> None:
    assert set(rates(schedule="constant")["head"]) == {0.1}


def test_the_backbone_has_a_rate_of_its_own() -> None:
    for schedule in ("poly", "onecycle"):
        seen = rates(schedule=schedule, backbone_lr=0.1)
        assert seen["backbone"] == pytest.approx([rate / 10 for rate in seen["head"]], rel=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_norms_and_biases_need_not_decay(optimizer: Literal["sgd", "adamw"]) -> None:
    task = tiny_task(decay_norms=False, weight_decay=0.3, optimizer=optimizer)
    task.trainer = SimpleNamespace(estimated_stepping_batches=1)
    configured: Any = task.configure_optimizers()
    decay = {id(p): group["weight_decay"] for group in configured["optimizer"].param_groups for p in group["params"]}
    assert len(decay) == len(list(task.parameters()))
    for module in task.modules():
        for name, parameter in module.named_parameters(recurse=False):
            norm = isinstance(module, nn.BatchNorm2d)
            assert decay[id(parameter)] == (0 if norm or name == "bias" else 0.3)


def test_losses_are_made_as_configured() -> None:
    loss = tiny_task(loss={"ohem": 1.0, "dice": 0.5}, ohem_threshold=None, ohem_min_kept=7).loss
    assert loss.weights == {"ohem": 1.0, "dice": 0.5}
    ohem = loss.losses["ohem"]
    assert isinstance(ohem, OHEM)
    assert (ohem.threshold, ohem.min_kept, ohem.ignore_index) == (None, 7, 255)
    assert run(f"{FIT} --model.loss.ohem 1 --model.loss.dice 0.5 --model.ohem_min_kept 9 --trainer.max_steps 1") == 0


def test_class_weights_come_from_the_training_masks() -> None:
    assert run(f"{FIT} --model.class_weights balanced --run a --trainer.max_steps 1 --trainer.precision 64-true") == 0
    data = ContextProbe(cells=5, colours=2, textures=2, queries=2, train_images=6)
    counts = torch.tensor(data.class_statistics())
    task = tiny_task(class_weights="balanced")
    task.trainer = SimpleNamespace(datamodule=data, ckpt_path=None)
    task.setup("fit")
    weights = task.loss.losses["cross_entropy"].class_weights
    assert torch.equal(weights, balanced_weights(counts))
    assert weights[0] < weights[1:].min()


def test_compiling_keeps_the_names_of_the_weights() -> None:
    plain, compiled = tiny_task(), tiny_task(compile=True)
    assert compiled.network.head._compiled_call_impl is not None
    assert plain.state_dict().keys() == compiled.state_dict().keys()


def test_a_checkpoint_is_a_task_by_itself() -> None:
    assert run(f"{FIT} --run a --model.head CCNet --model.head.channels 8") == 0
    task = SegmentationTask.load_from_checkpoint(Path("runs/a", LAST), map_location="cpu")
    assert type(task.network.head).__name__ == "CCNet"
    assert task.class_names == ["background", "rows", "columns"]
    assert_same_weights({"state_dict": task.state_dict()}, checkpoint("a"))


def test_a_batch_of_one_that_cannot_be_normalised_stops_before_the_first_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(f"{FIT} --data.batch_size 1 --model.head PSPNet --model.head.channels 8 --run one") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("PSPNet cannot train on batches of 1 image of ")
    assert "--data.batch_size 2" in line
    assert not list(Path("runs").rglob("*.ckpt"))


@pytest.mark.parametrize("every", ["check_val_every_n_epoch 9", "val_check_interval 2", "val_check_interval 3"])
def test_a_run_that_ends_by_its_steps_validates_after_the_last_one(every: str) -> None:
    """Two whole epochs are six steps, so that four end in the middle of one."""
    across = "" if every.startswith("check") else "--trainer.check_val_every_n_epoch null"
    assert run(f"{FIT} --run a --trainer.max_epochs -1 --trainer.max_steps 4 --trainer.{every} {across}") == 0
    count = {"check_val_every_n_epoch 9": 1, "val_check_interval 2": 2, "val_check_interval 3": 2}[every]
    scores = logged(Path("runs/a"), "val/mIoU")
    assert len(scores) == count
    assert checkpoint("a")["global_step"] == 4
    assert checkpoint("a", "checkpoints/best.ckpt")["callbacks"].keys() >= {"ClassTable"}
