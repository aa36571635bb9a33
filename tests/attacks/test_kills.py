"""Kills, full disks and flipped bits while a run is written: one checkpoint always resumes, and nothing else stays."""

import os
import random
import re
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from attacks.tally import Tally
from commands import PROBE, run, typed

from lightning_app.reading.checkpoints import CheckpointFiles, Damaged, read
from lightning_app.runs.lock import Lock
from lightning_app.util.errors import InputError
from lightning_app.util.files import remove_leftovers

FIT = f"fit {PROBE} --trainer.max_epochs 3"
OTHER_DISK = Path("/dev/shm")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")  # restored after the test


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty temporary folder on another filesystem, where there is one."""
    folder = Path(tempfile.mkdtemp(dir=OTHER_DISK if OTHER_DISK.is_dir() else None))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def content(step: int, size: int = 50_000) -> dict[str, Any]:
    state = {"weight": torch.full((size,), float(step)), "bias": torch.zeros(3)}
    return {"config": {}, "hyper_parameters": {}, "state_dict": state, "global_step": step}


def forked(work: Callable[[], None]) -> int:
    """A process that does ``work`` and ends with 0, or with 1 where that raised."""
    if process := os.fork():
        return process
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def kills(count: int, folder: Path) -> int:
    """How many of ``count`` kills of a process that saves again and again left no checkpoint that loads."""
    last, dice, bad = folder / "last.ckpt", random.Random(0), 0
    files = CheckpointFiles(folder)
    files.save_checkpoint(content(0), last)

    def save() -> None:
        step = 1
        while True:
            files.save_checkpoint(content(step), last)
            step += 1

    for _ in range(count):
        process = forked(save)
        time.sleep(dice.uniform(0, 0.03))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        remove_leftovers(folder)
        try:
            loaded = read(last)
            whole = bool((loaded["state_dict"]["weight"] == loaded["global_step"]).all())
        except InputError:
            whole = False
        bad += not whole or {path.name for path in folder.iterdir()} - {"last.ckpt", "previous.ckpt"} != set()
    return bad


@pytest.mark.parametrize("count", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_a_kill_in_a_save_leaves_a_checkpoint_and_nothing_else(
    count: int, tmp_path: Path, temporary: Path, tally: Tally
) -> None:
    bad = kills(count, tmp_path)
    tally("kills in a save", count, bad)
    assert bad == 0
    assert list(temporary.iterdir()) == []


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    CheckpointFiles(tmp_path).save_checkpoint(content(1), last)

    def save() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        with pytest.raises(OSError, match="File too large"):
            CheckpointFiles(tmp_path).save_checkpoint(content(2), last)

    _, status = os.waitpid(forked(save), 0)
    assert status == 0
    assert read(last)["global_step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def flips(path: Path, count: int) -> int:
    """How many of ``count`` flipped bits load as something else than what was saved."""
    whole, dice, bad = path.read_bytes(), random.Random(1), 0
    for _ in range(count):
        place, bit = dice.randrange(len(whole)), dice.randrange(8)
        broken = bytearray(whole)
        broken[place] ^= 1 << bit
        path.write_bytes(broken)
        try:
            read(path)
            bad += 1
        except InputError:
            pass
    path.write_bytes(whole)
    return bad


def test_a_flipped_bit_or_a_cut_end_is_found(tmp_path: Path, tally: Tally) -> None:
    path = tmp_path / "last.ckpt"
    CheckpointFiles(tmp_path).save_checkpoint(content(1, size=500), path)
    bad = flips(path, 400)
    tally("flipped bits in a checkpoint", 400, bad)
    assert bad == 0
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            read(path)


def test_a_checkpoint_without_a_checksum_loads_and_its_records_are_verified(tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    torch.save(content(7, size=500), path)
    assert read(path)["global_step"] == 7
    broken = bytearray(path.read_bytes())
    broken[broken.index(torch.full((4,), 7.0).numpy().tobytes())] ^= 1
    path.write_bytes(broken)
    with pytest.raises(Damaged, match=r"old\.ckpt is not a checkpoint of this program, or damaged"):
        read(path)


def test_a_damaged_last_names_what_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"{FIT} --run a") == 0
    folder = Path("runs/a/checkpoints")
    whole = (folder / "last.ckpt").read_bytes()
    (folder / "last.ckpt").write_bytes(whole[:-1000] + bytes(1000))
    capsys.readouterr()
    for command in (
        "fit --run a --ckpt_path last",
        "test --run a --ckpt_path last",
        f"test --weights {folder}/last.ckpt",
    ):
        assert run(command) == 2
        line = capsys.readouterr().err
        assert line.startswith("runs/a/checkpoints/last.ckpt is")
        assert line.count("\n") == 1
        if "--ckpt_path" in command:
            assert re.search(r"Whole: previous\.ckpt \(step 9\), best\.ckpt \(step \d\)", line)
            assert f"Go on with contextzoo {command.split()[0]} --run a --ckpt_path previous" in line
    assert run("fit --run a --ckpt_path previous --trainer.max_epochs 4") == 0


def test_a_run_belongs_to_one_training_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"{FIT} --trainer.max_epochs 1 --run a") == 0
    here, there = os.pipe()

    def hold() -> None:
        with Lock() as lock:
            lock.take(Path("runs/a"))
            os.fork()  # as a process that reads images, which lives on
            os.write(there, b"x")
            time.sleep(60)

    holder = forked(hold)
    try:
        os.read(here, 1)
        capsys.readouterr()
        for command in (f"{FIT} --run a", "fit --run a --ckpt_path last"):
            assert run(command) == 2
            line = capsys.readouterr().err
            assert line.startswith(f"runs/a is being trained by another process ({holder} on ")
            assert line.count("\n") == 1
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    assert run("fit --run a --ckpt_path last --trainer.max_epochs 2") == 0  # it died with its process


def breaking(hook: str, what: str) -> str:
    callback = {"class_path": "killed.Breaks", "init_args": {"hook": hook, "what": what}}
    Path("breaks.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))
    return "-c breaks.yaml --trust"


FAULTS = {
    "run": r"runs/a was deleted or moved while it was being written: nothing more was saved",
    "disk": r"runs/a.*: File too large\. Free some space\.",
    "worker": r"A process that reads images ended \(.*\).* give fewer --data\.num_workers\.",
}


@pytest.mark.parametrize("what", ["run", *(pytest.param(what, marks=pytest.mark.slow) for what in ("disk", "worker"))])
def test_what_ends_a_training_is_one_line(what: str, tmp_path: Path, tally: Tally) -> None:
    workers = int(what == "worker")
    done = typed(f"{FIT} --data.num_workers {workers} {breaking('on_train_batch_start', what)} --run a", tmp_path)
    said = done.stderr.splitlines()
    # where the killed worker is noticed inside a destructor or a hook of a fork, Python itself reports that above
    one = len(said) == 1 or (what == "worker" and said[0].startswith("Exception ignored in"))
    good = done.returncode == 2 and one and bool(re.match(FAULTS[what], said[-1]))
    tally("faults in mid-run", 1, not good)
    assert good, (done.returncode, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_one_line(rank: int, tmp_path: Path) -> None:
    two = "--trainer.devices 2 --trainer.strategy ddp --data.batch_size 1"
    done = typed(f"{FIT} {two} {breaking('on_train_batch_start', f'rank{rank}')} --run a", tmp_path)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "Another process of this training ended or was killed." in done.stderr
