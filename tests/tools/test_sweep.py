"""Sweeps as people type them: what is trained, skipped, resumed and recorded, and what the table says."""

import contextlib
import csv
import fcntl
import io
import json
import os
import runpy
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import TESTS, logged, run
from PIL import Image
from weights import fit_camvid

import zoo
from lightning_app.app.cli import main
from lightning_app.registry import HEADS
from lightning_app.tools.sweep_counts import Images, SweepCounts
from lightning_app.tools.sweep_plan import plan, read_options, read_variants
from lightning_app.util.errors import InputError
from zoo import index

TINY = {
    "model": {
        "backbone": {"class_path": "Patchify", "init_args": {"channels": 8}},
        "head": {"class_path": "FCN", "init_args": {"channels": 8}},
    },
    "data": {
        "class_path": "ContextProbe",
        "init_args": {
            "cells": 5,
            "colours": 2,
            "textures": 2,
            "queries": 2,
            "train_images": 6,
            "val_images": 5,
            "test_images": 7,
            "batch_size": 2,
        },
    },
    "trainer": {"accelerator": "cpu", "max_epochs": 2, "log_every_n_steps": 1},
}
KILLED = {"trainer": {"callbacks+": [{"class_path": "killed.KilledAt", "init_args": {"steps": 4}}]}}
OPTIONS = "fcn: {recurrence: 1}\nccnet: {recurrence: 1}\npsanet: {mask_size: [9, 9]}\n"  # of heads not asked for too
GIVEN = "--seeds 1 --options given.yaml -c killed.yaml --trust"
OUT = Path("runs/sweep/tiny")


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A working folder with a recipe of seconds; trainings find this folder's modules, and no launcher's variables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("sweep"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS)]))
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_ARRAY_TASK_ID"):
            patch.delenv(name, raising=False)
        Path("tiny.yaml").write_text(f"# Seconds long.\n# contextzoo fit -c tiny.yaml\n{yaml.safe_dump(TINY)}")
        Path("killed.yaml").write_text(yaml.safe_dump(KILLED))
        Path("given.yaml").write_text(OPTIONS)
        yield


def make_folder(root: Path, images: int) -> Path:
    """Noise of two classes in the layout of Folder, one image of them to validate on."""
    dice = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(images):
        Image.fromarray(dice.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray(dice.integers(0, 2, (40, 48), dtype=np.uint8)).save(root / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("even\nodd\n")
    (root / "train.txt").write_text("\n".join(map(str, range(1, images))))
    (root / "val.txt").write_text("0")
    return root


def result(name: str, out: Path = OUT) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / name / "result.json").read_text())
    return content


def pretend(out: Path, head: str, seed: int, miou: float = 0.5, **changes: Any) -> None:
    """What a training that has ended leaves behind."""
    content = {
        "head": head,
        "seed": seed,
        "recipe": "tiny.yaml",
        "options": None,
        "words": [],
        "command": "contextzoo fit ...",
        "commit": "c0",
        "date": "2026-01-02T03:04:05+00:00",
        "threads": 1,
        "device": "a CPU",
        "resumed": False,
        "minutes": 10.0,
        "mIoU": miou,
        "mAcc": miou + 0.1,
        "parameters": 2_000_000,
        "head_parameters": 500_000,
        "gflop": 1.25,
        "image_size": [40, 48],
        "images_per_s": 10.0,
        "peak_memory_mb": 700.0,
        "device_memory_mb": None,
        **changes,
    }
    (out / f"{head}-{seed}").mkdir(parents=True)
    (out / f"{head}-{seed}" / "result.json").write_text(json.dumps(content))


# Training


@pytest.fixture(scope="module")
def calls() -> list[tuple[int, str, str]]:
    """Status and output of three calls, and what was recorded of CCNet after each.

    FCN does not know its option; CCNet is killed after the first of its two epochs, and goes on in the second call.
    """
    done = []
    for heads in ("fcn ccnet", "ccnet", "ccnet"):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            status = run(f"sweep tiny.yaml --heads {heads} {GIVEN}")
        done.append((status, out.getvalue(), (OUT / "ccnet-0/result.json").read_text()))
    return done


def test_a_failure_is_recorded_and_the_others_train(calls: list[tuple[int, str, str]]) -> None:
    status, out, ccnet = calls[0]
    assert status == 1
    assert f"fcn seed 0 failed: {result('fcn-0')['error']} ({OUT}/fcn-0.log)" in out
    assert 'Unknown option "recurrence"' in result("fcn-0")["error"]
    assert result("fcn-0")["error"] in Path(OUT, "fcn-0.log").read_text()
    assert json.loads(ccnet)["error"].startswith("killed by SIGKILL")


def test_what_was_killed_goes_on_from_its_checkpoint(calls: list[tuple[int, str, str]]) -> None:
    status, out, _ = calls[1]
    assert status == 0
    assert "1 of 1 trainings to do" in out
    assert result("ccnet-0")["resumed"]
    assert "Resuming runs/sweep/tiny/ccnet-0 at step 3" in Path(OUT, "ccnet-0.log").read_text()
    assert torch.load(OUT / "ccnet-0/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6


def test_what_is_finished_is_skipped(calls: list[tuple[int, str, str]]) -> None:
    status, out, ccnet = calls[2]
    assert status == 0
    assert "trainings to do" not in out
    assert ccnet == calls[1][2]


def test_a_result_holds_what_the_run_wrote(calls: list[tuple[int, str, str]]) -> None:
    found, folder = result("ccnet-0"), OUT / "ccnet-0"
    scores = logged(folder, "val/mIoU") + logged(folder, "val/mIoU", version=1)
    assert len(scores) == 2
    assert found["mIoU"] == pytest.approx(max(scores), abs=1e-6)
    assert [each["name"] for each in found["classes"]] == ["background", "rows", "columns"]
    assert statistics.mean(each["IoU"] for each in found["classes"]) == pytest.approx(found["mIoU"])
    assert found["command"] == (
        "contextzoo fit -c tiny.yaml --model.head CCNet --model.head.recurrence=1 --seed_everything 0 -c killed.yaml "
        "--trust --run sweep/tiny/ccnet-0"
    )
    assert (found["steps"], found["image_size"]) == (6, [40, 40])
    state = torch.load(folder / found["checkpoint"], weights_only=True)["state_dict"]
    learnt = {name: each.numel() for name, each in state.items() if not name.endswith(("_mean", "_var", "_tracked"))}
    assert found["parameters"] == sum(learnt[name] for name in learnt if name.startswith("network."))
    assert found["head_parameters"] == sum(learnt[name] for name in learnt if name.startswith("network.head."))
    speeds = logged(folder, "train/images_per_s") + logged(folder, "train/images_per_s", version=1)
    assert found["images_per_s"] == statistics.median(speeds)
    assert found["peak_memory_mb"] >= max(logged(folder, "train/peak_memory_mb", version=1))
    assert found["cpu_minutes"] > 0


def test_a_file_gives_options_to_single_heads(
    calls: list[tuple[int, str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    head = yaml.safe_load((OUT / "ccnet-0/config.yaml").read_text())["model"]["head"]["init_args"]
    assert (head["recurrence"], head["channels"]) == (1, 8)
    (words,) = read_options("given.yaml", ["psanet"])["psanet"]
    assert run(f"fit -c tiny.yaml --model.head PSANet {words.replace(' ', '')} --print_config") == 0
    head = yaml.safe_load(capsys.readouterr().out)["model"]["head"]["init_args"]
    assert (head["mask_size"], head["channels"]) == ([9, 9], 8)
    assert "--options given.yaml" in (OUT / "results.md").read_text()
    assert run(f"sweep tiny.yaml --heads ccnet {GIVEN.replace('--options given.yaml ', '')}") == 2
    assert "which is another sweep" in capsys.readouterr().err


def test_gflop_counts_two_per_multiply_add(calls: list[tuple[int, str, str]]) -> None:
    state = torch.load(OUT / "ccnet-0/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    kernels = [each for name, each in state.items() if name.endswith("weight") and each.dim() == 4]
    cells = 5 * 5  # where all of them work: a patch of 8 x 8 pixels becomes one
    products = sum(2 * cells * kernel.numel() for kernel in kernels)
    assert products <= 1e9 * result("ccnet-0")["gflop"] <= 1.2 * products


@pytest.mark.slow
def test_words_that_no_training_takes_stop_the_sweep(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("sweep tiny.yaml --seeds 1 --out wrong --model.lrr 3") == 2
    assert capfd.readouterr().err.splitlines()[-1] == (
        'Unknown option "--model.lrr". Did you mean "--model.lr"? (--help-all lists them)'
    )
    assert len(list(Path("wrong").glob("*/result.json"))) == 2


@pytest.mark.slow
def test_an_interrupted_sweep_takes_its_trainings_with_it() -> None:
    command = "sweep tiny.yaml --heads fcn --seeds 1 --out stopped --trainer.max_epochs 1000000"
    process = subprocess.Popen([sys.executable, "-m", "lightning_app", *command.split()])
    log = Path("stopped/fcn-0.log")
    while not (log.is_file() and "epoch 3/" in log.read_text()):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130
    with log.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which a training still at it would hold
    assert not Path("stopped/fcn-0/result.json").exists()  # that is no failure


def test_a_training_of_another_process_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("busy").mkdir()
    with Path("busy/fcn-0.log").open("w") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert run("sweep tiny.yaml --heads fcn --seeds 1 --out busy") == 0
    assert "[1/1] fcn seed 0: another process trains it (busy/fcn-0.log is locked)" in capsys.readouterr().out
    assert not Path("busy/fcn-0").exists()


# What is trained, and where


@pytest.mark.slow
def test_a_sweep_is_one_group_in_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WANDB_MODE": "offline", "WANDB_CACHE_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    out = Path("runs/sweep/heads")
    command = f"sweep tiny.yaml --heads fcn --seeds 1 --wandb-project blocks --out {out} --trainer.max_epochs 1"
    assert run(command) == 0, (out / "fcn-0.log").read_text()
    (record,) = (out / "fcn-0" / "wandb").glob("offline-run-*")
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(record)]
    lines = subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.splitlines()
    (told,) = [each["run"] for each in map(json.loads, lines) if each["type"] == "run"]
    named = [told[name] for name in ("project", "run_group", "job_type", "display_name")]
    assert named == ["blocks", "heads", "fcn", "fcn-0"]


def test_all_heads_come_first_with_the_first_seed() -> None:
    trainings = plan(["a", "b", "c"], 2, Path("out"), {})
    assert [(each.head, each.seed) for each in trainings] == [
        ("a", 0),
        ("b", 0),
        ("c", 0),
        ("a", 1),
        ("b", 1),
        ("c", 1),
    ]


def test_folds_are_trainings_of_their_own() -> None:
    trainings = plan(["a", "b"], 2, Path("out"), {}, folds=2)
    assert [each.folder.name for each in trainings[:5]] == [
        "a-0-fold0",
        "a-0-fold1",
        "b-0-fold0",
        "b-0-fold1",
        "a-1-fold0",
    ]
    assert len({each.folder for each in trainings}) == 8


@pytest.mark.slow
def test_cross_validation_scores_every_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folds of the images to train and to validate on; the figure is of all of them together."""
    monkeypatch.chdir(tmp_path)
    fakes = make_folder(tmp_path / "data", images=5)
    recipe = TINY | {"data": {"class_path": "Folder", "init_args": {"root": str(fakes), "batch_size": 2}}}
    recipe["trainer"] = {"accelerator": "cpu", "max_epochs": 1, "log_every_n_steps": 1}
    Path("crossed.yaml").write_text(yaml.safe_dump(recipe))
    typed = "sweep crossed.yaml --heads fcn ccnet --seeds 1 --folds 2 --out crossed"
    assert run(typed) == 0
    counts = SweepCounts.read(Path("crossed/results.npz"))
    assert len(counts.names) == len(set(counts.names)) == 5
    rows = json.loads(Path("crossed/results.json").read_text())["heads"]
    assert {row["head"]: row["mIoU"] for row in rows} == {head: value for head, (value,) in counts.means().items()}
    assert [row["best"] for row in rows] == [row["mIoU"] for row in rows]  # of a seed, not of a fold
    for part in range(2):
        alone = Images.read(Path(f"crossed/fcn-0-fold{part}/images.npz"))
        union = (alone.truth + alone.predicted - alone.hits).sum(0)
        iou = alone.hits.sum(0)[union > 0] / union[union > 0]
        assert result(f"fcn-0-fold{part}", Path("crossed"))["mIoU"] == pytest.approx(iou.mean(), abs=1e-6)
    assert "--folds 2 --seeds" in Path("crossed/results.md").read_text()
    assert run(typed.replace("--folds 2", "--folds 3")) == 2


@pytest.mark.parametrize(
    "processes",
    [
        [{"RANK": str(rank), "WORLD_SIZE": "3"} for rank in range(3)],
        [
            {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_MIN": "4", "SLURM_ARRAY_TASK_COUNT": "4"}
            for task in range(4, 8)
        ],
        [
            {f"SLURM_ARRAY_TASK_{name}": value for name, value in (("ID", task), ("STEP", "5"), ("COUNT", "2"))}
            | {"RANK": rank, "WORLD_SIZE": "2"}
            for task in "05"
            for rank in "01"
        ],
    ],
    ids=["torchrun", "array", "both"],
)
def test_processes_share_the_trainings(processes: list[dict[str, str]]) -> None:
    heads, out = list(HEADS), Path("out")
    parts = [plan(heads, 2, out, environment) for environment in processes]
    assert sorted(each.folder for part in parts for each in part) == sorted(
        each.folder for each in plan(heads, 2, out, {})
    )
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_budget_holds_what_a_training_is_expected_to_take(capsys: pytest.CaptureFixture[str]) -> None:
    out = Path("budget")
    pretend(out, "fcn", 0, minutes=4.0)
    pretend(out, "ccnet", 0, minutes=8.0)
    assert run("sweep tiny.yaml --heads fcn ccnet danet --seeds 2 --out budget --budget 5.9m") == 0
    assert "trainings left: 4. The same command goes on" in capsys.readouterr().out
    assert sorted(path.name for path in out.glob("*/")) == ["ccnet-0", "fcn-0"]


# Reports


@pytest.fixture(scope="module")
def two(_folder: None) -> tuple[Path, Path]:
    """Folders of two sweeps."""
    first, second = Path("reported"), Path("other")
    for seed, (fcn, ccnet) in enumerate([(0.50, 0.58), (0.52, 0.55), (0.51, 0.61)]):
        pretend(first, "fcn", seed, fcn)
        pretend(first, "ccnet", seed, ccnet, images_per_s=(3.0, 5.0, 4.0)[seed], peak_memory_mb=800.0 + seed)
    pretend(first, "danet", 0, error="boom", status=1, log="reported/danet-0.log")
    words = ["--data.root", "/here/data", "--data.cells", "6"]
    command = shlex.join(["contextzoo", "fit", "-c", "recipes/second", *words])
    for head, miou in (("fcn", 0.8), ("ccnet", 0.9), ("danet", 0.7)):
        pretend(second, head, 0, miou, recipe="recipes/second", words=words, command=command, peak_memory_mb=None)
    return first, second


def test_the_table_is_of_the_results(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--report", str(two[0])]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line.startswith((" ccnet", " fcn"))}
    assert list(rows) == ["ccnet", "fcn"]  # the best first
    assert " ".join(rows["ccnet"]) == "ccnet 58.0 ± 3.0 61.0 (2) +7.0 68.0 2.00 M 0.50 M 1.25 4.0 802 MB"
    assert " ".join(rows["fcn"]) == "fcn 51.0 ± 1.0 52.0 (1) 61.0 2.00 M 0.50 M 1.25 10.0 700 MB"
    assert "danet seed 0 failed: boom (reported/danet-0.log)" in lines

    with (two[0] / "results.csv").open() as file:
        ccnet, fcn = csv.DictReader(file)
    assert float(ccnet["deviation"]) == pytest.approx(statistics.stdev([0.58, 0.55, 0.61]))
    assert float(ccnet["minus_plain"]) == pytest.approx(0.07)
    assert (fcn["head"], fcn["seeds"], fcn["parameters"]) == ("fcn", "3", "2000000")
    content = json.loads((two[0] / "results.json").read_text())
    assert content["heads"][0]["mIoU"] == float(ccnet["mIoU"])
    assert len(content["trainings"]) == 6
    assert [each["head"] for each in content["failures"]] == ["danet"]
    page = (two[0] / "results.md").read_text()
    assert "| ccnet | 3 | 58.0 ± 3.0 | 61.0 (2) | +7.0 | 68.0 | 2.00 M | 0.50 M | 1.25 | 4.0 | 802 MB |" in page
    assert "- danet seed 0 failed: boom" in page


def test_one_page_of_two_sweeps(two: tuple[Path, Path]) -> None:
    assert main(["sweep", "--report", *map(str, two), "--to", "docs/results.md"]) == 0
    page = Path("docs/results.md").read_text()
    first, second = "## reported\n\nSeconds long.\n\n`contextzoo sweep tiny.yaml", "## other\n\n`contextzoo sweep"
    assert page.index(first) < page.index(second)
    assert "`contextzoo sweep recipes/second --seeds 1 --data.root DIR --data.cells 6`" in page
    assert "| 10.0 | 700 MB |" in page[: page.index(second)]
    assert "| 10.0 |  |" in page[page.index(second) :]  # nobody measured their memory
    assert "Below FCN: danet." in page
    for picture in ("results-reported.png", "results-other.png"):
        assert f"]({picture})" in page
        assert Path("docs", picture).read_bytes().startswith(b"\x89PNG")


def test_variants_are_compared_by_the_figure_of_their_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, ap in (("none", 0.30), ("se", 0.34)):
        for seed in range(2):
            found = {"figure": "AP", "AP": ap + seed / 100, "AP50": 0.7, "PCK": 0.8, "variants": "blocks.yaml"}
            pretend(Path("poses"), name, seed, **found)
    assert main(["sweep", "--report", "poses", "--to", "page.md"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith((" se", " none"))]
    assert " ".join(rows[0]) == "se 34.5 ± 0.7 35.0 (1) +4.0 70.0 80.0 2.00 M 0.50 M 1.25 10.0 700 MB"
    assert rows[1][0] == "none"
    page = Path("page.md").read_text()
    assert "| variant | seeds | AP | best (seed) | to none | AP50 | PCK |" in page
    assert "`contextzoo sweep tiny.yaml --variants blocks.yaml --seeds 2`" in page


def test_variants_with_an_fcn_among_them_are_held_against_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, score in (("fcn", 0.5), ("ccnet", 0.6)):
        pretend(Path("joint"), name, 0, score, variants="joint.yaml")
    assert main(["sweep", "--report", "joint", "--to", "page.md"]) == 0
    assert "| variant | seeds | mIoU | best (seed) | to FCN |" in Path("page.md").read_text()


def test_a_file_gives_variants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "variants.yaml"
    file.write_text("plain: {}\ntall: {model.head.recurrence: 3, data.cells: [3, 4], model.kind: tall}\n")
    words = ["--model.head.recurrence=3", "--data.cells=[3, 4]", "--model.kind=tall"]
    assert read_variants(str(file)) == {"plain": [], "tall": words}
    assert read_variants(str(file), ["plain"]) == {"plain": []}
    with pytest.raises(InputError, match=r"has no variant 'tal'\. Did you mean"):
        read_variants(str(file), ["tal"])
    for text, line in (("a: 3", "write NAME: {OPTION: VALUE}"), ("../a: {}", "cannot name a folder"), ("- a", "write")):
        file.write_text(text)
        with pytest.raises(InputError, match=line):
            read_variants(str(file))
    assert run(f"sweep tiny.yaml --variants {file} --heads fcn") == 2
    assert "leave --heads and --options out" in capsys.readouterr().err
    assert run("sweep tiny.yaml --only fcn") == 2
    assert "heads are chosen by --heads" in capsys.readouterr().err


def test_a_recipe_on_other_data_is_not_described_by_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--data", "Folder", "--data.root", "here"]
    pretend(Path("other"), "fcn", 0, recipe="recipes/camvid_cpu", words=words)
    pretend(Path("same"), "fcn", 0, recipe="recipes/camvid_cpu", words=words[2:])
    assert main(["sweep", "--report", "other", "same"]) == 0
    other, same = (Path(folder, "results.md").read_text() for folder in ("other", "same"))
    assert "CamVid" in same
    assert "CamVid" not in other
    assert "The recipe camvid_cpu on other data than its own: Folder." in other


@pytest.mark.parametrize("costs", [(3.101, 3.102, 3.104), (1.0, 1.5, 900.0), (23.91, 23.92, 23.99), (2.0, 2.0, 2.0)])
def test_no_two_ticks_of_the_plot_say_the_same(
    costs: tuple[float, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    monkeypatch.chdir(tmp_path)
    figures: list[Figure] = []
    save = Figure.savefig

    def kept(self: Figure, *args: Any, **given: Any) -> None:
        figures.append(self)
        save(self, *args, **given)

    monkeypatch.setattr(Figure, "savefig", kept)
    for head, cost in zip(("fcn", "ccnet", "danet"), costs, strict=True):
        pretend(Path("close"), head, 0, gflop=cost, parameters=round(1e6 * cost))
    assert main(["sweep", "--report", "close"]) == 0
    for axis in figures[0].axes:
        low, high = axis.get_xlim()
        ticks = zip(axis.get_xticklabels(), axis.get_xticks(), strict=True)
        shown = [text.get_text() for text, place in ticks if low <= place <= high]
        assert shown
        assert len(set(shown)) == len(shown)


def test_the_page_can_be_made_again_from_the_files(two: tuple[Path, Path], tmp_path: Path) -> None:
    assert main(["sweep", "--report", *map(str, two), "--to", "docs/results.md"]) == 0
    for folder in two:
        shutil.copy(folder / "results.json", tmp_path / f"{folder.name}.json")
    assert "/here/data" not in (tmp_path / "other.json").read_text()
    files = [str(tmp_path / f"{folder.name}.json") for folder in two]
    assert main(["sweep", "--report", *files, "--to", str(tmp_path / "results.md")]) == 0
    again, before = (path.read_text().splitlines() for path in (tmp_path / "results.md", Path("docs/results.md")))
    assert before[2] == "Written by `contextzoo sweep --report reported other --to docs/results.md`."
    assert again[3:] == before[3:]
    assert (tmp_path / "results-other.png").is_file()


def test_sweeps_of_one_recipe_stand_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the names of their folders, as people give them: one recipe, trained with other words."""
    monkeypatch.chdir(tmp_path)
    for folder, factor in (("whole", 1), ("windows", -1)):
        for number, head in enumerate(("fcn", *"abcdefgh")):
            words = ["--model.protocol.mode", "slide"] if folder == "windows" else []
            pretend(Path(folder), head, 0, 0.5 + factor * number / 100, words=words)
    assert main(["sweep", "--report", "whole", "windows"]) == 0
    files = ["whole/results.json", "windows/results.json"]
    assert main(["sweep", "--report", *files, "--to", "page.md"]) == 0
    page = Path("page.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## ")][:2] == ["## whole", "## windows"]
    assert "| whole |  | -1.00 (8) |" in page
    assert {path.name for path in Path().glob("*.png")} >= {"page-whole.png", "page-windows.png"}

    Path("elsewhere/whole").mkdir(parents=True)
    shutil.copy("windows/results.json", "elsewhere/whole")
    capsys.readouterr()
    assert main(["sweep", "--report", "whole", "elsewhere/whole", "--to", "page.md"]) == 2
    assert capsys.readouterr().err == (
        "whole and elsewhere/whole have the same name, which stands for a sweep on the page: rename one\n"
    )


def test_reports_import_no_torch(two: tuple[Path, Path]) -> None:
    """The process that starts trainings stays small: a training's peak of memory begins with its parent's."""
    code = f"import sys; from lightning_app.app.cli import main; main(['sweep', '--report', '{two[0]}']); " + (
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


# Bad input: one line, status 2

BAD = {
    "sweep": "which recipe? It comes first",
    "sweep recipes/camvid_gpu": "Did you mean recipes/camvid",
    "sweep tiny.yaml --heads ccnett": 'Unknown head "ccnett". Did you mean "ccnet"? (contextzoo heads)',
    "sweep tiny.yaml --seeds 0": "--seeds is 0: give a positive number",
    "sweep tiny.yaml --jobs -1": "--jobs is -1: give a positive number",
    "sweep tiny.yaml --folds 1": "--folds is 1: give 2 or more",
    "sweep tiny.yaml --data.fold=[0,2]": "--data.fold=[0,2]: the sweep gives it",
    "sweep tiny.yaml --budget 100": "'100' is not a time such as 100m or 2h",
    "sweep tiny.yaml --model.head CCNet": "--model.head: the sweep gives it to each training; leave it out",
    "sweep tiny.yaml --run=a": "--run=a: the sweep gives it",
    "sweep tiny.yaml --options nowhere.yaml": 'No configuration "nowhere.yaml": neither a file nor a shipped one.',
    "sweep tiny.yaml --options heads.txt": "heads.txt: write HEAD: {OPTION: VALUE} on each line",
    "sweep tiny.yaml --options wrong.yaml": 'Unknown head "ccnett". Did you mean "ccnet"? (contextzoo heads)',
    "sweep tiny.yaml --report --data.cells 6": "--report trains nothing: leave out --data.cells 6",
    "sweep tiny.yaml --to results.txt": "--to results.txt: give the name of a Markdown file",
    "sweep --report nowhere": "nowhere holds no results: give the folder of a sweep",
    "sweep --report tiny.yaml": "tiny.yaml is no results.json of a sweep",
    "sweep tiny.yaml --out mixed --heads fcn --data.cells 6": "mixed/fcn-0 holds contextzoo fit ..., which is another",
    "sweep tiny.yaml --out broken --heads fcn": "broken/fcn-0/result.json holds no result of a sweep",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("heads.txt").write_text("ccnet: 3")
    Path("wrong.yaml").write_text("ccnett: {recurrence: 1}")
    for out in map(Path, ("mixed", "broken")):
        if not out.exists():
            pretend(out, "fcn", 0)
    Path("broken/fcn-0/result.json").write_text('{"head": "fcn", ')
    assert run(command) == 2
    error = capsys.readouterr().err
    assert BAD[command] in error
    assert error.count("\n") == 1


def test_another_place_of_the_data_is_the_same_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    pretend(Path("moved"), "fcn", 0, words=["--data.root", "/there"])
    assert run("sweep tiny.yaml --heads fcn --seeds 1 --out moved --data.root=/here") == 2
    assert run("sweep tiny.yaml --heads fcn --seeds 1 --out moved --data.root /here") == 0


# Publishing


@pytest.fixture
def own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the zoo's index to write to."""
    folder = tmp_path / "index"
    shutil.copytree(index.INDEX, folder)
    monkeypatch.setattr(index, "INDEX", folder)
    return folder


def test_the_best_seed_of_each_head_is_published(
    own_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    publish_sweep = runpy.run_path(str(TESTS.parent / "scripts/publish_sweep.py"))["main"]
    checkpoint, sweep = fit_camvid(tmp_path, "--trainer.precision=bf16-mixed"), tmp_path / "sweep"
    for seed, miou in enumerate((0.3, 0.4, 0.2)):
        pretend(sweep, "fcn", seed, miou, checkpoint="checkpoints/best.ckpt", image_size=[24, 32], steps=2)
    pretend(sweep, "ccnet", 0, error="boom", status=1, log="ccnet-0.log")
    (sweep / "fcn-1/checkpoints").mkdir()
    shutil.copy(checkpoint, sweep / "fcn-1/checkpoints")
    command = [str(sweep), "--half", "--to", str(tmp_path / "out")]
    shipped = zoo.list_entries()
    id = "fcn_test_resnet_camvid-24x32_2"

    assert publish_sweep(command) == 0
    assert [entry.id for entry in zoo.list_entries() if entry not in shipped] == [id]
    assert zoo.get(id).metrics_source.startswith("contextzoo test --ckpt_path best.ckpt")
    before = (own_index / "semantic" / "fcn.toml").read_bytes()
    capsys.readouterr()
    assert publish_sweep(command) == 0
    assert capsys.readouterr().out == f"{id}: published already\n"

    assert publish_sweep([*command, "--seed", "1"]) == 0
    assert capsys.readouterr().out == f"{id}: published already\n"
    assert publish_sweep([*command, "--seed", "3"]) == 2
    assert capsys.readouterr().err.startswith(f"{sweep} holds no such results: give the folder of a sweep")
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["network.head.classifier.bias"] += 1
    torch.save(content, sweep / "fcn-1/checkpoints/best.ckpt")
    assert publish_sweep(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"{id} is taken by other weights: remove its entry and its folder first"
    assert (own_index / "semantic" / "fcn.toml").read_bytes() == before
