"""The command line as people type it: help, errors, configurations, a run from fit to predict."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from commands import PROBE, logged, run, typed
from PIL import Image

from lightning_app.app import configs
from lightning_app.app.cli import main
from lightning_app.registry import HEADS
from lightning_app.util.errors import InputError

FIT = f"fit {PROBE}"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")  # restored after the test


def printed_config(command: str, capsys: pytest.CaptureFixture[str]) -> dict:
    capsys.readouterr()
    assert run(f"{command} --print_config") == 0
    return yaml.safe_load(capsys.readouterr().out)


# Help


def test_the_first_page_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    for verb in ("fit", "validate", "test", "predict", "heads", "blocks", "data", "zoo"):
        assert f"\n  {verb} " in page
    assert main([]) == 0
    assert capsys.readouterr().out == page


@pytest.mark.parametrize("command", [["--help"], ["fit", "--help"], ["test", "-h"], ["fitt"]])
def test_help_and_typos_import_no_torch(command: list[str]) -> None:
    code = f"import sys; from lightning_app.app.cli import main; main({command}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_help_of_fit_explains_model_data_and_trainer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help"]) == 0
    page = capsys.readouterr().out
    for word in ("lr  ", "batch_size  ", "max_epochs  ", "--run NAME", "--ckpt_path", "camvid_cpu", "ccnet", "[0.01]"):
        assert word in page
    assert max(map(len, page.splitlines())) <= 130


def test_help_of_a_head_shows_its_own_options_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit --model.head.help CCNet") == 0
    page = capsys.readouterr().out
    assert "--model.head.recurrence" in page
    assert "criss-cross passes" in page
    assert "in_channels" not in page
    assert "num_classes" not in page


def test_heads_and_blocks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].startswith(f"{len(HEADS)} heads")
    (ccnet,) = (line.split() for line in table if " ccnet " in line)
    assert ccnet[:6] == ["ccnet", "CCNet", "arXiv:1811.11721", "2019", "23.93", "M"]
    assert main(["blocks"]) == 0
    assert " nonlocal_net " in capsys.readouterr().out


# Bad input: one line that names value and fix, status 2, no traceback, nothing left behind

BAD = {
    "fitt": 'Unknown command "fitt". Did you mean "fit"?',
    "train": 'Unknown command "train". Did you mean "fit"?',
    "trian": 'Unknown command "trian". Did you mean "fit"?',
    "val": 'Did you mean "validate"?',
    "eval": 'Did you mean "validate", or "test"?',
    "inference": 'Did you mean "infer", or "predict" for a whole dataset?',
    "download": 'Did you mean "zoo download"?',
    "onnx": 'Did you mean "export --to onnx"?',
    "test": "test with which weights? Give --ckpt_path best, a .ckpt file, or --weights ID",
    "predict --data CamVid": "predict with which weights?",
    f"{FIT} --epochs 3": 'Unknown option "--epochs". Here it is --trainer.max_epochs',
    f"{FIT} --batch-size 3": 'Unknown option "--batch-size". Here it is --data.batch_size',
    f"{FIT} --gpus 2": "Here it is --trainer.devices",
    f"{FIT} --workers 2": "Here it is --data.num_workers",
    f"{FIT} --output out": "Here it is --run",
    "fit --data.batch_size 2 --data ADE20": 'Unknown data "ADE20". Did you mean "ADE20K"?',
    "heads x": "contextzoo heads takes no arguments, got x",
    "fit": "--data is required, such as --data CamVid --data.root FOLDER",
    "fit -c nothing.yaml": 'No configuration "nothing.yaml": neither a file nor a shipped one.',
    "fit -c recipes/camvid_gpu": "Did you mean recipes/camvid",
    "fit -c": "expected one argument",
    "fit --data CamVidd": 'Unknown data "CamVidd". Did you mean "CamVid"?',
    "fit --data CamVid --data.root nowhere": "nowhere does not exist: the root of CamVid. Give the right --data.root",
    "fit --data CamVid --data.crop_size 3": 'data.crop_size cannot be "3": expected tuple[int, int] or null',
    "fit --data CamVid --data.crop_size [a,b]": "data.crop_size cannot be \"['a', 'b']\": expected tuple[int, int]",
    "fit --data CamVid --data.crop 3": 'Unknown option "crop". Did you mean "crop_size"?',
    "fit --data CamVid extra": 'What is "extra"?',
    f"{FIT} --data.cells many": 'data.cells cannot be "many": expected int',
    f"{FIT} --data.cells 2": "No room for cues and queries",
    f"{FIT} --data.batch_size 100": "6 training images make no batch of 100. Give --data.batch_size 6 or less",
    f"{FIT} --data.batch_size 0": "data.batch_size is 0: give 1 or more",
    f"{FIT} --model.head CCHaed": 'Unknown head "CCHaed". Did you mean "CCNet"? (contextzoo heads)',
    f"{FIT} --model.head.help CCNett": 'Unknown head "CCNett". Did you mean "CCNet"?',
    f"{FIT} --model.head CCNet --model.head.recurence 3": 'Unknown option "recurence". Did you mean "recurrence"?',
    f"{FIT} --model.head.levels [9]": "A head asks for a level that is not among the backbone's 4: 0 to 3",
    f"{FIT} --model.head.dropout 2": "dropout probability has to be between 0 and 1, but got 2.0",
    f"{FIT} --model.auxiliary FCNN": 'Unknown auxiliary "FCNN". Did you mean "FCN"?',
    f"{FIT} --model.backbone TimBackbone": 'Unknown backbone "TimBackbone". Did you mean "TimmBackbone"?',
    f"{FIT} --model.backbone TimmBackbone --model.backbone.name resnet18x": 'Unknown timm model "resnet18x". Did you',
    f"{FIT} --model.lrr 3": 'Unknown option "--model.lrr". Did you mean "--model.lr"?',
    f"{FIT} --lr 3": 'Unknown option "--lr". Here it is --model.lr',
    f"{FIT} --model.lr fast": 'model.lr cannot be "fast": expected float',
    f"{FIT} --model.ohem_threshold a": 'model.ohem_threshold cannot be "a": expected float or null',
    f"{FIT} --model.schedule polly": 'model.schedule cannot be "polly". Did you mean "poly"? (one of poly, onecycle,',
    f"{FIT} --model.num_classes 7": "model.num_classes comes from the data: leave it out",
    f"{FIT} --model.loss.dise 1": 'Unknown loss "dise". Did you mean "dice"?',
    f"{FIT} --model.class_weights [1,2]": "2 class weights for 3 classes",
    f"{FIT} --model.class_weights balancd": 'model.class_weights cannot be "balancd". Did you mean "balanced"?',
    f"{FIT} --model.protocol.mode slide": "Sliding windows need a crop such as [512, 512]",
    f"{FIT} --trainer.max_epochs many": 'trainer.max_epochs cannot be "many": expected int or null',
    f"{FIT} --trainer.max_epoch 3": 'Unknown option "--trainer.max_epoch". Did you mean "--trainer.max_epochs"?',
    f"{FIT} --trainer.precision bf17": 'trainer.precision cannot be "bf17". Did you mean "bf16"?',
    f"{FIT} --trainer.accelerator tpux": "invalid accelerator name: `accelerator='tpux'`",
    f"{FIT} --trainer.devices 0": "`Trainer(devices='0')` value is not a valid input",
    f"{FIT} --trainer.callbacks Foo": 'trainer.callbacks cannot be "Foo": no such class; give its full path',
    f"{FIT} --ckpt_path last": "--ckpt_path last: no runs/*/checkpoints/last.ckpt; give the file itself",
    f"test {PROBE}": "test with which weights? Give --ckpt_path best, a .ckpt file, or --weights ID",
    "test --ckpt_path nowhere.ckpt": "--ckpt_path nowhere.ckpt: no such file; give a .ckpt file, best, last, previous",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_line(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command) == 2
    error = capsys.readouterr().err
    assert BAD[command] in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


FILES = {
    "model: {lr: 0.1\ntrainer: [": "mine.yaml, line 2, is not YAML",
    "just text": "mine.yaml holds no configuration",
    "model: {lrr: 0.1}": 'mine.yaml: Unknown option "model.lrr". Did you mean "model.lr"?',
    "model: {lr: fast}": 'mine.yaml: model.lr cannot be "fast": expected float',
    "model: {head: {class_path: FCNN}}": 'mine.yaml: Unknown head "FCNN". Did you mean "FCN"?',
    "model: {head: {class_path: FCN, init_args: {width: 3}}}": 'mine.yaml: Unknown option "width".',
    "data: {class_path: CamVid, init_args: {crop_size: big}}": 'mine.yaml: data.crop_size cannot be "big"',
}


@pytest.mark.parametrize("text", FILES)
def test_a_bad_configuration_file_is_named(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(text)
    assert run(f"{FIT} -c mine.yaml") == 2
    error = capsys.readouterr().err
    assert FILES[text] in error
    assert error.count("\n") == 1


def test_a_pipe_is_no_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe")
    Path("a.yaml").write_text("config: pipe")
    assert run(f"{FIT} -c a.yaml") == 2
    assert capsys.readouterr().err == "pipe is no file: give one that holds YAML\n"


def test_a_configuration_that_contradicts_the_data_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.yaml").write_text("model: {num_classes: 5}")
    Path("a.yaml").write_text("config: in.yaml")
    assert run(f"{FIT} -c a.yaml --run a") == 2
    assert capsys.readouterr().err == "in.yaml: its model.num_classes is 5, and ContextProbe has 3: leave it out\n"
    assert not Path("runs").exists()
    Path("in.yaml").write_text("model: {num_classes: 3, class_names: [background, rows, columns]}")
    assert run(f"{FIT} -c a.yaml --trainer.max_epochs 1 --run a") == 0


def test_a_file_that_is_no_checkpoint_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("junk.ckpt").write_text("junk")
    torch.save({"state_dict": {}}, "foreign.ckpt")
    assert run("test --ckpt_path junk.ckpt") == run("test --ckpt_path foreign.ckpt") == 2
    junk, foreign = capsys.readouterr().err.splitlines()
    assert junk.startswith("junk.ckpt is not a checkpoint of this program, or damaged")
    assert foreign == "foreign.ckpt does not say how to rebuild its model: contextzoo fit did not write it"


def test_debug_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match='Unknown data "CamVidd"'):
        main(["fit", "--data", "CamVidd", "--debug"])
    done = typed("fitt", tmp_path)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")
    assert "Traceback" in typed("fitt --debug", tmp_path).stderr


# Configurations


@pytest.mark.parametrize("name", configs.names())
def test_every_shipped_configuration_is_read(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = "" if name.startswith(("data/", "recipes/")) else "--data ContextProbe"
    data = {"task/pose": "--data COCOKeypoints", "task/instance": "--data COCOInstances"}.get(name, data)
    assert printed_config(f"fit {data} -c {name}", capsys)["model"]
    if name.startswith("recipes/"):
        assert len(configs.find(name).read_text().splitlines()) <= 30


def test_what_comes_later_wins(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("model: {lr: 0.5, weight_decay: 0.25}")
    config = printed_config("fit --data ContextProbe --model.lr 1 -c mine.yaml --model.weight_decay 0", capsys)
    assert (config["model"]["lr"], config["model"]["weight_decay"]) == (0.5, 0.0)


def test_a_loss_replaces_the_one_before_and_its_parts_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text("model: {loss: {cross_entropy: 1.0}}")
    Path("b.yaml").write_text("model: {loss: {dice: 0.5}}")
    config = printed_config("fit --data ContextProbe -c a.yaml -c b.yaml", capsys)
    assert config["model"]["loss"] == {"dice": 0.5}
    config = printed_config("fit --data ContextProbe -c a.yaml --model.loss.dice 0.5", capsys)
    assert config["model"]["loss"] == {"cross_entropy": 1.0, "dice": 0.5}


def test_another_head_drops_what_only_the_first_knew(capsys: pytest.CaptureFixture[str]) -> None:
    first = "fit --data ContextProbe --model.head CCNet --model.head.recurrence 3"
    assert printed_config(first, capsys)["model"]["head"]["init_args"]["recurrence"] == 3
    head = printed_config(f"{first} -c head/emanet", capsys)["model"]["head"]
    assert head["class_path"].endswith("EMANet")
    assert "recurrence" not in head["init_args"]


def test_printed_configuration_says_the_same_again(capsys: pytest.CaptureFixture[str]) -> None:
    command = f"{FIT} -c schedule/ema --model.loss.dice 0.5 --model.auxiliary FCN --model.protocol.scales [0.5,1]"
    config = printed_config(command, capsys)
    Path("printed.yaml").write_text(yaml.safe_dump(config))
    assert printed_config("fit -c printed.yaml", capsys) == config


@pytest.mark.parametrize(
    "typed",
    [
        "--data ADE20K --data.batch_size 2",
        "--data.batch_size 2 --data ADE20K",
        "--data.batch_size=2 --data=ade20k",
        "--model.lr 0.1 --data.batch_size 2 -c schedule/ema --data ade20k",
    ],
)
def test_a_setting_may_stand_before_its_class(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = printed_config(f"fit {typed} --data.root ADE", capsys)["data"]
    assert data["class_path"].endswith(".ADE20K")
    assert (data["init_args"]["batch_size"], data["init_args"]["root"]) == (2, "ADE")


@pytest.mark.parametrize(
    "typed",
    [
        "--model.head ccnet --model.head.recurrence 3 --model.auxiliary fcn",
        "--model.head.recurrence 3 --model.head=CcNet --model.auxiliary Fcn",
        "--model.auxiliary=FCN --model.head.class_path ccnet --model.head.recurrence 3",
    ],
)
def test_a_head_by_any_of_its_names(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = printed_config(f"fit --data context_probe {typed}", capsys)["model"]
    assert model["head"]["class_path"].endswith(".CCNet")
    assert model["head"]["init_args"]["recurrence"] == 3
    assert model["auxiliary"]["class_path"].endswith(".FCN")


@pytest.mark.parametrize("name", ["ccnet", "CCNet", "CCNET", "cc-net"])
def test_the_registries_know_every_name(name: str) -> None:
    assert HEADS[name].slug == "ccnet"
    assert HEADS.names([f"{name},Non_Local fcn", "nonlocal-net"]) == ["ccnet", "nonlocal_net", "fcn", "nonlocal_net"]


def test_help_of_predict_is_of_predicting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--help"]) == 0
    page = capsys.readouterr().out
    for word in ("predict_folder", "protocol", "devices"):
        assert word in page
    for word in ("schedule  ", "optimizer", "max_epochs", "warmup_steps", "gradient_clip_val", "ohem"):
        assert word not in page


# A run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where a run called ``a`` was fitted by a command of its own."""
    folder = tmp_path_factory.mktemp("trained")
    done = typed(f"{FIT} --run a", folder)
    assert done.returncode == 0, done.stderr
    assert "FCN on Patchify" in done.stdout
    assert "epoch 2/2  step 6/6  train/loss" in done.stdout
    assert "5 images, each counted once." in done.stdout
    return folder


def test_a_run_lies_in_one_folder(trained: Path) -> None:
    a = trained / "runs" / "a"
    assert [path.name for path in trained.iterdir()] == ["runs"]
    assert {path.name for path in (a / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    config = yaml.safe_load((a / "config.yaml").read_text())
    assert config["model"]["head"]["init_args"]["channels"] == 8
    assert "# num_classes: 3" in (a / "config.yaml").read_text()
    assert len(logged(a, "train/loss")) == 6
    assert logged(a, "val/images") == [5, 5]


def test_the_saved_configuration_repeats_the_run(trained: Path) -> None:
    assert run(f"fit -c {trained}/runs/a/config.yaml --run b") == 0
    first, second = (
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for path in (trained / "runs" / "a", Path("runs/b"))
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_second_run_of_the_same_name_is_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    before = (trained / "runs" / "a" / "checkpoints" / "last.ckpt").read_bytes()
    assert run(f"{FIT} --run a") == 2
    assert capsys.readouterr().err == (
        "runs/a holds a run already: resume it with --run a --ckpt_path last, or choose another --run\n"
    )
    assert (trained / "runs" / "a" / "checkpoints" / "last.ckpt").read_bytes() == before


def test_validate_test_and_predict_need_the_checkpoint_only(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    a = trained / "runs" / "a"
    done = typed("test --run a --ckpt_path best --trainer.accelerator cpu", trained)
    assert done.returncode == 0, done.stderr
    assert "7 images, each counted once." in done.stdout
    scores = json.loads((a / "test.json").read_text())
    assert scores["images"] == 7
    assert sum(map(sum, scores["confusion"])) == 7 * 40 * 40
    assert scores["checkpoint"].endswith("best.ckpt")

    assert run("validate --run a --ckpt_path best --trainer.accelerator cpu") == 0
    validated = json.loads((a / "validate.json").read_text())
    assert validated["mIoU"] == pytest.approx(max(logged(a, "val/mIoU")))

    assert run("predict --ckpt_path runs/a/checkpoints/last.ckpt --trainer.accelerator cpu") == 0
    pictures = sorted((a / "predictions").rglob("*.png"))
    assert len(pictures) == 7
    assert Image.open(pictures[0]).size == (40, 40)
    assert "Predictions: runs/a/predictions" in capsys.readouterr().out


def test_other_data_than_the_model_was_trained_on(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    assert run("test --run a --ckpt_path best --data.test_images 3") == 0
    assert "You override: data.test_images 7 -> 3." in capsys.readouterr().out
    assert run("test --run a --ckpt_path best --data.textures 3") == 2
    assert "knows 3 classes, ContextProbe has 4: give the data it was trained on" in capsys.readouterr().err


def test_two_processes_count_each_image_once(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    assert run("test --run one --ckpt_path runs/a/checkpoints/best.ckpt --trainer.accelerator cpu") == 0
    two = "--trainer.devices 2 --trainer.strategy ddp --trainer.sync_batchnorm true --trainer.accelerator cpu"
    done = typed(f"test --run two --ckpt_path runs/a/checkpoints/best.ckpt {two}", trained)
    assert done.returncode == 0, done.stderr
    assert "7 images, each counted once over 2 devices." in done.stdout
    one, both = (json.loads((trained / "runs" / name / "test.json").read_text()) for name in ("one", "two"))
    assert both["images"] == 7
    assert both["confusion"] == one["confusion"]
    assert both["mIoU"] == one["mIoU"]


def test_a_configuration_keeps_what_one_that_it_includes_says_of_the_same_section(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("parts").mkdir()
    Path("parts/first.yaml").write_text(
        "model: {lr: 0.5, weight_decay: 0.25}\ntrainer: {check_val_every_n_epoch: null}\n"
    )
    Path("second.yaml").write_text(
        "config: parts/first.yaml\nmodel: {lr: 0.125, backbone_lr: 0.75}\ntrainer: {max_steps: 7}\n"
    )
    Path("third.yaml").write_text("config: second.yaml\nmodel: {backbone_lr: 0.625}\n")
    config = printed_config("fit -c third.yaml --data ContextProbe", capsys)
    assert [config["model"][name] for name in ("lr", "weight_decay", "backbone_lr")] == [0.125, 0.25, 0.625]
    assert (config["trainer"]["max_steps"], config["trainer"]["check_val_every_n_epoch"]) == (7, None)
