"""What a run leaves in Weights & Biases, read back from the file of an offline run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
import yaml
from commands import PROBE, typed
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from tiny import CLASSES, NoiseData, by_command_line, tiny_task, tiny_trainer

from lightning_app.callbacks import WandbPredictions, WandbReport, WandbRunLogger
from lightning_app.callbacks.wandb import small
from lightning_app.util.errors import InputError

CONFIG = Path(__file__).parents[2] / "configs" / "logger" / "wandb.yaml"
CHECKPOINTS = [
    {"filename": "best", "monitor": "val/mIoU", "mode": "max", "enable_version_counter": False},
    {"filename": "last", "every_n_train_steps": 1, "enable_version_counter": False},
]


class Offline:
    """One offline run's record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        self.records: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def history(self) -> list[dict[str, Any]]:
        return [record["item"] for record in self.all("history")]

    @property
    def config(self) -> dict[str, Any]:
        return {key: value for record in self.all("config") for key, value in record["update"].items()}

    @property
    def artifacts(self) -> list[dict[str, Any]]:
        return [artifact for artifact in self.all("artifact") if artifact["type"] == "model"]


def fit(folder: Path, *args: str) -> None:
    callbacks = [
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"dirpath": str(folder), **options}}
        for options in CHECKPOINTS
    ]
    folder.mkdir(exist_ok=True)
    base = folder / "base.yaml"
    base.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks, "enable_checkpointing": True}}))
    by_command_line(
        "fit", folder, f"--config={base}", f"--config={CONFIG}", f"--trainer.logger.save_dir={folder}", *args
    )
    wandb.finish()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Offline]:
    """A run of two epochs, and the same one resumed for a third."""
    folder = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WANDB_MODE", "offline")
        environment.setenv("WANDB_SILENT", "true")
        for variable in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
            environment.setenv(variable, str(folder))
        fit(folder / "run")
        fit(folder / "run", "--trainer.max_epochs=3", f"--ckpt_path={folder / 'run' / 'last.ckpt'}")
    return [Offline(path) for path in sorted((folder / "run" / "wandb").glob("offline-run-*"))]


def test_configuration_and_hparams(runs: list[Offline]) -> None:
    config = runs[0].config
    assert config["trainer"]["max_epochs"] == 2
    assert config["model"]["backbone"]["init_args"]["name"] == "resnet10t"
    assert config["data"]["class_path"] == "tiny.NoiseData"
    assert config["num_classes"] == 3


def test_per_class_scores_and_best_as_summary(runs: list[Offline]) -> None:
    validations = [item for item in runs[0].history if "val/mIoU" in item]
    assert len(validations) == 2
    for item in validations:
        assert item["val/mIoU"] == pytest.approx(sum(item[f"val/IoU/{name}"] for name in CLASSES) / 3, rel=1e-5)
    summaries = [record["update"]["val/mIoU"] for record in runs[0].all("summary") if "val/mIoU" in record["update"]]
    assert summaries[-1] == {"max": max(item["val/mIoU"] for item in validations)}


def test_the_same_samples_at_each_validation(runs: list[Offline]) -> None:
    samples = [item for item in runs[0].history if "val/samples.count" in item]
    assert len(samples) == 2  # none while sanity checking
    first, last = ([Path(name).stem.split("_")[-1] for name in item["val/samples.filenames"]] for item in samples)
    assert first == last  # hashes of what they show
    assert samples[0]["val/samples.captions"] == [f"val/{i}.png" for i in range(5)]

    image, truth = NoiseData().dataset("val")[2]["image"], NoiseData().dataset("val")[2]["mask"]  # type: ignore[index]
    files = runs[0].folder / "files"
    np.testing.assert_array_equal(Image.open(files / samples[0]["val/samples.filenames"][2]), image.permute(1, 2, 0))
    masks = samples[0]["val/samples.all_masks"][2]
    np.testing.assert_array_equal(Image.open(files / masks["ground_truth"]["path"]), truth)
    prediction = np.array(Image.open(files / masks["prediction"]["path"]))
    assert prediction.shape == truth.shape
    assert set(np.unique(prediction)) <= {0, 1, 2}
    labels = runs[0].config["_wandb"]["mask/class_labels"]["val/samples_wandb_delimeter_ground_truth"]["value"]
    assert labels == {"0": "road", "1": "car", "2": "sky", "255": "ignored"}


def test_confusion_matrix_from_counts(runs: list[Offline]) -> None:
    paths = [item[key] for item in runs[0].history for key in item if key == "val/confusion_table.path"]
    table = json.loads((runs[0].folder / "files" / paths[-1]).read_text())
    assert table["columns"] == ["Actual", "Predicted", "nPredictions"]
    assert [row[:2] for row in table["data"]] == [[truth, prediction] for truth in CLASSES for prediction in CLASSES]
    counts = np.array([row[2] for row in table["data"]]).reshape(3, 3)
    assert (counts.sum(1) == 5 * 16 * 24).all()
    last = [item for item in runs[0].history if "val/mIoU" in item][-1]
    assert counts[0, 0] / counts[0].sum() == pytest.approx(last["val/Acc/road"])


def test_the_best_weights_are_one_artifact(runs: list[Offline]) -> None:
    (artifact,) = runs[0].artifacts
    validations = [item["val/mIoU"] for item in runs[0].history if "val/mIoU" in item]
    epoch = int(np.argmax(validations))
    metadata = {"monitor": "val/mIoU", "score": pytest.approx(max(validations)), "classes": list(CLASSES)}
    assert json.loads(artifact["metadata"]) == metadata | {"epoch": epoch, "step": 3 * (epoch + 1)}
    assert set(artifact["aliases"]) == {"best", "latest"}
    (file,) = artifact["manifest"]["contents"]
    assert file["path"] == "best.ckpt"
    weights = torch.load(file["local_path"], weights_only=True)
    assert weights["epoch"] == epoch


def test_a_resumed_fit_goes_on_in_its_run(runs: list[Offline]) -> None:
    first, second = runs
    assert first.all("run")[0]["run_id"] == second.all("run")[0]["run_id"]
    assert second.history[0]["trainer/global_step"] == 6


def shares(prediction: np.ndarray, truth: np.ndarray) -> float:
    """mIoU of one image, pixel by pixel."""
    pairs = [(int(p), int(t)) for p, t in zip(prediction.flat, truth.flat, strict=True) if t != 255]
    found = {number for pair in pairs for number in pair}
    each = [sum(p == t == k for p, t in pairs) / sum(k in pair for pair in pairs) for k in found]
    return sum(each) / len(each)


def test_the_worst_images_of_a_test_are_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CACHE_DIR": str(tmp_path)}
    for name, value in {**offline, "WANDB_DATA_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    logger = WandbRunLogger(str(tmp_path), group="heads", job_type="fcn")
    task, data = tiny_task().eval(), NoiseData()
    trainer = tiny_trainer(tmp_path, max_epochs=1, callbacks=[WandbPredictions(most=3)], logger=logger)
    trainer.test(task, data, verbose=False)
    wandb.finish()
    (run,) = map(Offline, (tmp_path / "wandb").glob("offline-run-*"))
    assert [run.all("run")[0][name] for name in ("run_group", "job_type")] == ["heads", "fcn"]
    (artifact,) = [each for each in run.all("artifact") if each["type"] == "run_table"]
    files = {file["path"]: Path(file["local_path"]) for file in artifact["manifest"]["contents"]}
    (path,) = [path for name, path in files.items() if name.endswith("predictions.table.json")]
    table = json.loads(path.read_text())
    assert table["columns"] == ["image", "prediction", "mIoU", "aAcc"]
    expected = {}
    for sample in data.dataset("test"):  # type: ignore[union-attr]
        with torch.inference_mode():
            classes = task.network(sample["image"][None] / 255).argmax(1)[0]
        expected[sample["name"]] = 100 * shares(classes.numpy(), sample["mask"].numpy())
    worst = sorted(expected, key=lambda name: expected[name])[:3]
    assert [row[0] for row in table["data"]] == worst
    assert [row[2] for row in table["data"]] == pytest.approx([expected[name] for name in worst])
    picture = table["data"][0][1]
    assert set(picture["masks"]) == {"prediction", "ground_truth"}
    assert {picture["path"], *(mask["path"] for mask in picture["masks"].values())} <= files.keys()


def test_pictures_are_at_most_512_pixels_wide() -> None:
    photograph = np.full((300, 1024, 3), (255, 0, 0), dtype=np.uint8)
    classes = (np.arange(300 * 1024).reshape(300, 1024) % 3).astype(np.uint8)
    shrunk = small(photograph)
    assert shrunk.shape == (150, 512, 3)
    assert (shrunk == [255, 0, 0]).all()
    np.testing.assert_array_equal(small(classes), classes[::2, ::2])


def test_another_logger_hears_nothing(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="csv")
    trainer = tiny_trainer(tmp_path, max_epochs=1, callbacks=[WandbReport()], logger=logger)
    trainer.fit(tiny_task(), NoiseData())
    assert [path.name for path in tmp_path.iterdir()] == ["csv"]


def test_without_a_login_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**kwargs: Any) -> None:
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(InputError, match=r"^W&B: No API key.*wandb login.* Or set WANDB_MODE=offline"):
        _ = WandbRunLogger(str(tmp_path)).experiment


TWO_DEVICES = """
import sys
from pathlib import Path
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny import NoiseData, tiny_task
from lightning_app.callbacks import ClassTable, GeneratorStates, WandbReport, WandbRunLogger

run = Path(sys.argv[1])
callbacks = [ClassTable(), GeneratorStates(), WandbReport(), ModelCheckpoint(run, "best", monitor="val/mIoU")]
trainer = Trainer(
    accelerator="cpu", strategy="ddp", devices=2, max_epochs=1, num_sanity_val_steps=1, default_root_dir=run,
    use_distributed_sampler=False, enable_progress_bar=False, callbacks=callbacks, logger=WandbRunLogger(str(run)),
)
task, data = tiny_task(), NoiseData()
trainer.fit(task, data)
trainer.test(task, data, verbose=False)
"""


@pytest.mark.slow
def test_on_two_devices_the_first_one_speaks(tmp_path: Path) -> None:
    script, run = tmp_path / "fit.py", tmp_path / "run"
    script.write_text(TWO_DEVICES)
    offline = {"WANDB_MODE": "offline", "WANDB_CACHE_DIR": str(tmp_path), "WANDB_DATA_DIR": str(tmp_path)}
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    environment = os.environ | offline | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    process = subprocess.run([sys.executable, script, run], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("5 images, each counted once over 2 devices.") == 2  # after fit and after test
    (offline_run,) = map(Offline, (run / "wandb").glob("offline-run-*"))
    assert len(offline_run.artifacts) == 1
    assert [item["val/samples.count"] for item in offline_run.history if "val/samples.count" in item] == [3]
    states = torch.load(run / "best.ckpt", weights_only=True)["callbacks"]["GeneratorStates"]
    assert len(states["ranks"]) == 2
    assert json.loads((run / "test.json").read_text())["images"] == 5


def test_a_run_is_called_like_its_folder_and_nothing_is_warned_of(tmp_path: Path) -> None:
    for command in ("git init -q .", "git -c user.name=a -c user.email=a@b commit -q --allow-empty -m a"):
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    folders = dict.fromkeys(("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"), str(tmp_path))
    with pytest.MonkeyPatch.context() as environment:
        for name, value in ({"WANDB_MODE": "offline"} | folders).items():
            environment.setenv(name, value)
        environment.delenv("WANDB_SERVICE", raising=False)  # of runs in this process, which writes when it likes
        done = typed(f"fit {PROBE} --trainer.max_epochs 1 -c logger/wandb --run wb", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "WARN" not in done.stderr
    assert "git root" not in done.stderr
    (run,) = map(Offline, (tmp_path / "runs" / "wb" / "wandb").glob("offline-run-*"))
    assert run.all("run")[0]["display_name"] == "wb"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True).stdout.strip()
    assert commit in json.dumps(run.records)


def test_records_lie_in_the_runs_folder_wherever_the_process_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B's service looks from where the first run of the process started."""
    monkeypatch.chdir(tmp_path)
    logger = WandbRunLogger(save_dir="runs/a")
    monkeypatch.chdir("/")
    assert logger.save_dir == str(tmp_path / "runs/a")


@pytest.mark.slow
def test_the_sweep_of_the_docs_is_a_command_of_ours(tmp_path: Path) -> None:
    """What W&B's agent would start, but for what it says the data are."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    page = (Path(__file__).parents[2] / "docs" / "wandb.md").read_text()
    sweep = yaml.safe_load(page.partition('title="wandb_sweep.yaml"')[2].partition("```")[0])
    chosen = {name: {"value": rule.get("max") or rule["values"][-1]} for name, rule in sweep["parameters"].items()}
    words = {**utils.create_sweep_command_args({"args": chosen}), "program": [sweep["program"]]}
    command = [word for part in sweep["command"] for word in words.get(part.strip("${}"), [part])]
    assert command[:4] == ["${env}", "python", "-m", "lightning_app"]
    done = typed(" ".join([*command[4:], "--print_config"]), tmp_path)
    assert done.returncode == 0, done.stderr
    model = yaml.safe_load(done.stdout)["model"]
    assert (model["lr"], model["head"]["init_args"]["channels"]) == (0.02, 128)
    assert model["head"]["class_path"].endswith("CCNet")
