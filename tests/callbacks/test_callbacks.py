"""What a run reports and keeps: progress, tables, throughput, generator states, predictions, configuration."""

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from tiny import PALETTE, NoiseData, by_command_line, tiny_task, tiny_trainer

from lightning_app.callbacks import ClassTable, GeneratorStates, PredictionWriter, Progress, Throughput
from lightning_app.callbacks.table import print_report
from lightning_app.tasks.semantic.metrics import Scores
from lightning_app.tasks.semantic.summary import report_of
from lightning_app.tasks.semantic.task import SegmentationTask
from lightning_app.util.errors import InputError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def fit(folder: Path, *callbacks: Callback, **options: Any) -> tuple[Trainer, SegmentationTask]:
    trainer, task = tiny_trainer(folder, callbacks=list(callbacks), **{"max_epochs": 2} | options), tiny_task()
    trainer.fit(task, NoiseData())
    return trainer, task


def test_progress_is_lines_of_text_where_stdout_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer, task = fit(tmp_path, Progress(), enable_progress_bar=True)
    out = capsys.readouterr().out
    assert "\r" not in out
    assert "\x1b" not in out
    lines = out.splitlines()
    assert [line.partition("  train/loss")[0].partition("  val/")[0] for line in lines] == [
        "epoch 1/2  step 3/6",
        "epoch 1/2  validation",
        "epoch 2/2  step 6/6",
        "epoch 2/2  validation",
    ]
    assert f"train/loss {trainer.callback_metrics['train/loss']:.4g}" in lines[2]
    assert f"val/mIoU {task.reports['val'].figures['mIoU']:.4g}" in lines[3]


def test_progress_in_mid_epoch_after_some_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer, task = fit(tmp_path, Progress(seconds=0), enable_progress_bar=True, max_epochs=1)
    trainer.test(task, NoiseData(), verbose=False)
    out = capsys.readouterr().out
    assert "epoch 1/1  step 1/3" in out
    assert out.splitlines()[-5:] == [f"test {n}/5" for n in range(1, 6)]


def test_progress_is_a_bar_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    fit(tmp_path, Progress(), enable_progress_bar=True, max_epochs=1)
    out = terminal.getvalue()
    assert "\x1b[" in out
    assert "Epoch 1/1" in out
    assert "step 3/3" not in out


SCORES = Scores(torch.tensor([[60, 20, 0], [0, 20, 0], [0, 0, 0]]), images=2000, ignored=0.032)


def test_table_as_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report_of(SCORES, ["road", "car", "[b]:sun:"], devices=2), title="Best")
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "Best",
        "class      IoU    Acc  pixels",
        "road      75.0   75.0    80.0",
        "car       50.0  100.0    20.0",
        "[b]:sun:     -      -     0.0",
        "2000 images, each counted once over 2 devices. Pixels ignored: 3.2 %. mIoU 62.5 over 2 classes.",
    ]


def test_table_has_frames_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    print_report(report_of(SCORES, ["road", "car", "sky"]))
    assert "─" in terminal.getvalue()


def test_scores_as_json_hold_null_for_nan() -> None:
    content = json.loads(json.dumps(report_of(SCORES, ["road", "car", "sky"]).as_dict(), allow_nan=False))
    assert content["classes"][2] == {"name": "sky", "IoU": None, "Acc": None, "pixels": 0.0}
    assert content["confusion"] == SCORES.confusion.tolist()
    assert content["mIoU"] == 0.625


def test_table_after_fit_validate_and_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = ClassTable()
    trainer, task = fit(tmp_path, table, ModelCheckpoint(tmp_path, monitor="val/mIoU", mode="max"), max_epochs=3)
    out = capsys.readouterr().out
    assert out.count("each counted once") == 1  # not at each epoch
    best = trainer.checkpoint_callback.best_model_score  # type: ignore[union-attr]
    assert f"mIoU {100 * best:.1f} over" in out
    state = table.state_dict()
    assert f"Best validation: epoch {state['epoch']}" in out

    path = trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    trainer.validate(task, NoiseData(), ckpt_path=path, weights_only=True, verbose=False)
    trainer.test(task, NoiseData(), ckpt_path=path, weights_only=True, verbose=False)
    assert capsys.readouterr().out.count("5 images, each counted once.") == 2
    for stage in ("validate", "test"):
        content = json.loads((tmp_path / f"{stage}.json").read_text())
        assert content["checkpoint"] == path
        assert content["images"] == 5
        assert content["confusion"] == state["report"]["confusion"]
    assert not list(tmp_path.glob(".*"))


def test_throughput_leaves_validation_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(Callback):
        now = 0.0

        def __call__(self) -> float:
            return self.now

        def on_train_batch_start(self, *args: Any) -> None:
            self.now += 2

        def on_validation_start(self, *args: Any) -> None:
            self.now += 100

    clock = Clock()
    monkeypatch.setattr("lightning_app.callbacks.throughput.perf_counter", clock)
    logger = CSVLogger(tmp_path, name="csv")
    trainer, _ = fit(tmp_path, clock, Throughput(), logger=logger, val_check_interval=2, log_every_n_steps=3)
    metrics = trainer.callback_metrics
    assert metrics["train/images_per_s"] == 4 / 2
    assert metrics["train/epoch_s"] == 3 * 2
    assert 100 < metrics["train/peak_memory_mb"] < 1e5
    header, *rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    logged = [row.split(",")[header.split(",").index("train/images_per_s")] for row in rows]
    assert [value for value in logged if value] == ["2.0", "2.0"]


def test_throughput_of_a_run_that_goes_on_in_mid_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(Callback):
        now = 1e6

        def __call__(self) -> float:
            return self.now

        def on_train_batch_start(self, *args: Any) -> None:
            self.now += 2

    monkeypatch.setattr("lightning_app.callbacks.throughput.perf_counter", clock := Clock())
    fit(tmp_path, ModelCheckpoint(tmp_path, "mid", every_n_train_steps=1), max_steps=1)
    trainer = tiny_trainer(tmp_path, callbacks=[clock, Throughput()], max_epochs=1)
    trainer.fit(tiny_task(), NoiseData(), ckpt_path=tmp_path / "mid.ckpt", weights_only=True)
    assert trainer.global_step == 3
    assert trainer.callback_metrics["train/images_per_s"] == 4 / 2
    assert trainer.callback_metrics["train/epoch_s"] == 2 * 2


class Dice(Callback):
    """Draws from all generators in every step."""

    def __init__(self) -> None:
        self.drawn: list[tuple[float, float, float]] = []

    def on_train_batch_end(self, *args: Any) -> None:
        self.drawn.append((torch.rand(()).item(), np.random.random(), random.random()))


def test_a_resumed_run_draws_the_same_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(resume: Path | None = None) -> tuple[list[tuple[float, float, float]], LightningModule, str]:
        by_step = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        after_validation = ModelCheckpoint(tmp_path, "validated-{step}", monitor="val/mIoU", save_top_k=-1)
        dice, task = Dice(), tiny_task(schedule="constant")
        torch.manual_seed(int(resume is not None))
        callbacks = [dice, GeneratorStates(), ClassTable(), by_step, after_validation]
        tiny_trainer(tmp_path, max_epochs=2, callbacks=callbacks).fit(
            task, NoiseData(), ckpt_path=resume, weights_only=True if resume else None
        )
        return dice.drawn, task, capsys.readouterr().out.partition("Last")[0]

    drawn, whole, table = run()
    for checkpoint, step in (("step=4", 4), ("validated-step=3", 3)):
        drawn_again, resumed, table_again = run(tmp_path / f"{checkpoint}.ckpt")
        assert drawn_again == drawn[step:]
        assert table_again == table  # of the best epoch, whichever process saw it
        for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
            assert torch.equal(a, b), name  # dropout masks included


def test_predictions_keep_names_and_class_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["a/x.jpg", "b/x.jpg", "z.png", "../up/y.tif", "/abs/w.png"]
    data, task = NoiseData(names), tiny_task()
    outputs = tiny_trainer(tmp_path, callbacks=[PredictionWriter()]).predict(task, data)
    folder = tmp_path / "predictions"
    assert f"Predictions: {folder}" in capsys.readouterr().out
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    stems = ["a/x", "b/x", "z", "up/y", "abs/w"]
    assert written == {f"{stem}{end}" for stem in stems for end in (".png", "_overlay.jpg")}
    for stem, classes in zip(stems, outputs or [], strict=True):
        mask = Image.open(folder / f"{stem}.png")
        assert mask.mode == "P"
        assert mask.getpalette()[:9] == [value for colour in PALETTE for value in colour]  # type: ignore[index]
        np.testing.assert_array_equal(np.array(mask), classes[0])
        overlay = Image.open(folder / f"{stem}_overlay.jpg")
        assert overlay.width >= 48
        assert overlay.height > 32 + 12  # the legend below it, as segment's have it


def test_two_predictions_of_one_name_are_an_error(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, callbacks=[PredictionWriter(tmp_path / "out")])
    with pytest.raises(InputError, match=r"a/x\.jpg and a/x\.png would both be predicted to .*x\.png: rename"):
        trainer.predict(tiny_task(), NoiseData(["a/x.jpg", "a/x.png"]))


def test_the_whole_configuration_is_saved_once_for_every_difference(tmp_path: Path) -> None:
    run = tmp_path / "run"
    logger = ["--trainer.logger=lightning.pytorch.loggers.CSVLogger", f"--trainer.logger.save_dir={run}"]
    short = [*logger, "--trainer.max_steps=1", "--trainer.limit_val_batches=0"]
    by_command_line("fit", run, *short)
    text = (run / "config.yaml").read_text()
    assert "# num_classes: 3\n" in text.partition("# hparams\n")[2]
    config = yaml.safe_load(text)
    assert config["model"]["lr"] == 0.01  # a default
    assert config["trainer"]["gradient_clip_val"] is None
    logged = yaml.full_load((run / "lightning_logs/version_0/hparams.yaml").read_text())
    assert logged["trainer"]["max_steps"] == 1
    assert logged["num_classes"] == 3

    by_command_line("fit", run, f"--config={run / 'config.yaml'}", *short)
    assert [path.name for path in run.glob("*.yaml")] == ["config.yaml"]
    by_command_line("fit", run, f"--config={run / 'config.yaml'}", *short, "--model.lr=0.1")
    assert (run / "config.yaml").read_text() == text
    assert yaml.safe_load((run / "config-2.yaml").read_text())["model"]["lr"] == 0.1

    by_command_line("test", run)
    assert yaml.safe_load((run / "test.yaml").read_text())["model"]["lr"] == 0.01
    assert len(list(run.glob("*.yaml"))) == 3
