"""``fit --model.weights``: the run takes the weights' own backbone and head, and changes the classifier alone."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import run
from data.make_fakes import camvid
from weights import fit_camvid, openmmlab_file, write_tiny

import zoo
from lightning_app.weights.load import load
from lightning_app.weights.openmmlab import convert as openmmlab
from lightning_app.weights.openmmlab.heads import joined
from lightning_app.weights.openmmlab.published import upstream_config
from lightning_app.weights.parts import new_segmentor

FIT = (
    "fit --data CamVid --data.root camvid --data.crop_size [32,32] --data.batch_size 2 --data.num_workers 0 "
    "--trainer.max_epochs 1 --trainer.accelerator cpu --trainer.devices 1"
)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")
    camvid(tmp_path / "camvid")


def printed(capsys: pytest.CaptureFixture[str], options: str) -> dict[str, Any]:
    """The model of a configuration that ``--print_config`` shows."""
    assert run(f"{FIT} {options} --print_config") == 0
    model: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)["model"]
    return model


def test_weights_bring_their_head_and_the_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = write_tiny(tmp_path / "a.safetensors")
    assert run(f"{FIT} --model.weights a.safetensors --model.lr 0 --run one") == 0
    assert (
        "New: head.classifier.{weight,bias}, auxiliary.classifier.{weight,bias} (3 -> 11 classes)."
        in capsys.readouterr().out
    )
    model = yaml.safe_load(Path("runs/one/config.yaml").read_text())["model"]
    assert model["backbone"]["init_args"]["name"] == "test_resnet"
    assert model["head"]["init_args"]["channels"] == 8
    assert model["auxiliary"]["init_args"]["channels"] == 4
    (tmp_path / "a.safetensors").unlink()
    again = load("runs/one/checkpoints/last.ckpt")
    assert torch.equal(again.head.convs[0].conv.weight, given["head.convs.0.conv.weight"])
    assert run("test --ckpt_path runs/one/checkpoints/last.ckpt --data.test_split val") == 0


def test_a_checkpoint_brings_its_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit_camvid(tmp_path)
    capsys.readouterr()
    model = printed(capsys, "--model.weights runs/tiny/checkpoints/best.ckpt")
    assert (model["backbone"]["init_args"]["name"], model["head"]["init_args"]["channels"]) == ("test_resnet", 8)


def test_a_published_file_of_openmmlab_brings_its_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = openmmlab_file(tmp_path)
    model = printed(capsys, f"--model.weights {file}")
    assert model["backbone"]["init_args"] | {"name": "resnet18", "output_stride": 8} == model["backbone"]["init_args"]
    assert model["backbone"]["init_args"]["changes"] == {"conv2_dilation": 1}
    assert model["head"]["class_path"].endswith(".FCN")
    assert model["head"]["init_args"]["channels"] == 128
    assert model["auxiliary"]["init_args"]["channels"] == 64
    assert printed(capsys, f"--model.weights {file} --model.head.dropout 0")["head"]["init_args"]["channels"] == 128


def test_what_is_given_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny(tmp_path / "a.safetensors")
    start = "--model.weights a.safetensors"
    assert printed(capsys, f"{start} --model.head CCNet")["head"]["class_path"].endswith(".CCNet")
    assert printed(capsys, f"{start} --model.backbone.name resnet18")["head"]["init_args"]["channels"] == 8
    only = printed(capsys, f"{start} --model.weights_part backbone")
    assert (only["backbone"]["init_args"]["name"], only["head"]) == ("test_resnet", None)
    Path("mine.yaml").write_text(
        yaml.safe_dump({"model": {"head": {"class_path": "PSPNet"}, "weights": "a.safetensors"}})
    )
    mine = printed(capsys, "-c mine.yaml")
    assert (mine["head"]["class_path"].rpartition(".")[2], mine["backbone"]["init_args"]["name"]) == (
        "PSPNet",
        "test_resnet",
    )


def test_a_head_of_another_width_is_answered_with_the_one_that_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny(tmp_path / "a.safetensors")
    command = f"{FIT} --model.weights a.safetensors --model.head FCN --run two"
    assert run(f"{command} --model.head.channels 16") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "tensors" in line]
    assert "--model.backbone.name test_resnet --model.backbone.output_stride 16 --model.head FCN" in line
    assert "--model.head.channels 8" in line
    assert run(f"{command} --model.head.channels 16 --model.weights_force true") == 0
    settings = line.partition("or give ")[2].partition(", or --model.weights_force")[0]
    assert run(f"{FIT} --model.weights a.safetensors {settings} --run three") == 0
    assert "New: head.classifier.{weight,bias} (3 -> 11 classes)." in capsys.readouterr().out


def heads() -> dict[str, str]:
    """The smallest entry of OpenMMLab's for each of its heads."""
    entries = [entry for entry in zoo.list_entries(task="semantic") if entry.format == "openmmlab"]
    entries.sort(key=lambda entry: -(entry.parameters or math.inf))
    return {joined(upstream_config(entry)["decode_head"])["type"]: entry.id for entry in entries}


@pytest.mark.parametrize("id", heads().values(), ids=list(heads()))
def test_parts_of_a_published_model_make_the_same_network(id: str) -> None:
    config = upstream_config(zoo.get(id))
    classes = joined(config["decode_head"])["num_classes"]
    with torch.device("meta"):
        ours, theirs = new_segmentor(openmmlab.parts_of(config), classes, id), openmmlab.new_segmentor(config)
    assert str(ours) == str(theirs)
    assert ours.auxiliary_weight == theirs.auxiliary_weight or theirs.auxiliary is None
    assert ours.head.align_corners == theirs.head.align_corners
