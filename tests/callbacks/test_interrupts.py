"""Ctrl-C and other signals: the state is saved, the line says how to go on, and the run ends as if undisturbed."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import PROBE, logged, run, typed

FIT = f"fit {PROBE} --trainer.log_every_n_steps 20"
LAST = Path("checkpoints", "last.ckpt")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")  # restored after the test


def signalled(hook: str, steps: int, number: int = signal.SIGINT) -> str:
    """The option that signals the run in ``hook`` after ``steps`` steps."""
    callback = {"class_path": "killed.SignalledIn", "init_args": {"hook": hook, "steps": steps, "number": int(number)}}
    Path("signalled.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))
    return "-c signalled.yaml --trust"


def weights(name: str) -> dict[str, Any]:
    content = torch.load(Path("runs", name, LAST), weights_only=True)
    state: dict[str, Any] = content.get("current_model_state", content["state_dict"])
    return state


PLACES = [
    ("on_train_batch_start", 4, ""),
    ("on_train_batch_end", 6, "-c schedule/ema"),  # the last one of an epoch
    ("on_validation_batch_end", 3, ""),
    ("on_validation_batch_start", 3, "-c schedule/ema"),
    ("on_save_checkpoint", 3, ""),
]


@pytest.mark.parametrize(("hook", "steps", "options"), PLACES)
def test_an_interrupted_run_ends_with_the_same_weights(
    hook: str, steps: int, options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"{FIT} --trainer.max_epochs 3 {options} --run whole") == 0
    assert run(f"{FIT} --trainer.max_epochs 3 {options} {signalled(hook, steps)} --run a") == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("Go on with contextzoo fit --run a --ckpt_path last")
    assert torch.load(Path("runs/a", LAST), weights_only=True)["global_step"] < 9
    assert run("fit --run a --ckpt_path last --trust") == 0
    whole, again = weights("whole"), weights("a")
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_validation_begins_anew_where_it_was_interrupted() -> None:
    assert run(f"{FIT} --trainer.max_epochs 3 --run whole") == 0
    assert run(f"{FIT} --trainer.max_epochs 3 {signalled('on_validation_batch_end', 3)} --run a") == 130
    assert run("fit --run a --ckpt_path last --trust") == 0
    for name in ("val/mIoU", "val/loss", "val/images"):
        assert logged(Path("runs/a"), name, version=1) == logged(Path("runs/whole"), name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_other_signals_end_with_their_own_status(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    assert run(f"{FIT} {signalled('on_train_batch_start', 2, number)} --run a") == 128 + number
    assert "at step 3. Go on with contextzoo fit --run a --ckpt_path last" in capsys.readouterr().err
    assert signal.getsignal(number) == before


def test_a_signal_before_the_first_step_saves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        assert run(f"{FIT} {signalled('on_fit_start', 0)} --run a") == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "Interrupted\n"
    assert not Path("runs/a", LAST).exists()


def test_the_second_signal_stops_at_once(tmp_path: Path) -> None:
    twice = signalled("on_train_batch_start", 2).replace("signalled", "twice")
    callbacks = yaml.safe_load(Path("signalled.yaml").read_text())["trainer"]["callbacks+"]
    second = {"class_path": "killed.SignalledIn", "init_args": {"hook": "on_before_backward", "steps": 2}}
    Path("twice.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [*callbacks, second]}}))
    done = typed(f"{FIT} {twice} --run a", tmp_path)
    assert done.returncode == 130, done.stderr
    assert "Go on with" not in done.stderr
    assert not Path("runs/a", LAST).exists()


@pytest.mark.slow
@pytest.mark.parametrize(("hook", "steps"), [("on_train_batch_start", 2), ("on_validation_batch_start", 2)])
def test_one_signal_stops_all_devices(hook: str, steps: int, tmp_path: Path) -> None:
    two = "--trainer.devices 2 --trainer.strategy ddp --data.batch_size 1 --data.val_batch_size 1"
    done = typed(f"{FIT} {two} {signalled(hook, steps)} --run a", tmp_path)
    assert done.returncode == 130, done.stderr
    assert done.stderr.count("Go on with contextzoo fit --run a --ckpt_path last") == 1
    assert typed("fit --run a --ckpt_path last --trust", tmp_path).returncode == 0


def test_loss_is_logged_once_an_epoch_at_least(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"{FIT} --trainer.max_epochs 3 --run a") == 0
    assert len(logged(Path("runs/a"), "train/loss")) == 3
    assert capsys.readouterr().err == ""
