"""``contextzoo zoo convert``: checkpoints that people trained with mmsegmentation, under names of their own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from weights import ENTRY, openmmlab_file

import zoo
from lightning_app.app.cli import main
from lightning_app.tasks.semantic.protocol import EvaluationProtocol
from lightning_app.util.errors import InputError
from lightning_app.weights.load import load
from lightning_app.weights.openmmlab import mmseg_config
from lightning_app.weights.openmmlab.published import upstream_config

CONFIG = """
_base_ = ['base/model.py', 'base/data.py']
width = 64
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    decode_head=dict(num_classes=19, channels=2 * width, norm_cfg=norm_cfg, dropout_ratio=0.1),
    auxiliary_head=dict(_delete_=True, **{{_base_.aux}}, num_classes=19, channels=width, norm_cfg=norm_cfg))
"""
MODEL = """
aux = dict(type='FCNHead', in_channels=256, in_index=2, num_convs=1, concat_input=False)
model = dict(
    type='EncoderDecoder', pretrained='open-mmlab://resnet18_v1c',
    backbone=dict(type='ResNet', depth=18, num_stages=4, out_indices=(0, 1, 2, 3), dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1), norm_cfg=dict(type='SyncBN'), norm_eval=False, style='pytorch', contract_dilation=True),
    decode_head=dict(type='FCNHead', in_channels=512, in_index=3, channels=512, num_convs=2, concat_input=True,
        align_corners=False, loss_decode=[dict(type='CrossEntropyLoss', loss_weight=1.0)]),
    auxiliary_head=dict(type='PSPHead', pool_scales=(1, 2)),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
"""
DATA = """
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(2048, 1024), keep_ratio=True)]
"""

Weights = tuple[dict[str, Tensor], Tensor]  # and the logits of the network that has them


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def images() -> Tensor:
    return torch.rand(1, 3, 33, 41, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """The tensors of a published file, and its logits."""
    path = openmmlab_file(tmp_path_factory.mktemp("published"))
    return torch.load(path, weights_only=True)["state_dict"], load(path)(images())


def trained(published: Weights, **meta: Any) -> tuple[Path, Tensor]:
    """A file of the same weights under a name of its own, and the same logits."""
    state_dict, logits = published
    path = Path("iter_40000.pth").absolute()
    torch.save({"meta": meta, "state_dict": state_dict, "optimizer": {"state": {}}}, path)
    return path, logits


def write_configs() -> None:
    Path("base").mkdir()
    for name, text in {"config.py": CONFIG, "base/model.py": MODEL, "base/data.py": DATA}.items():
        Path(name).write_text(text)


def test_like_a_published_model(published: Weights, capsys: pytest.CaptureFixture[str]) -> None:
    path, expected = trained(published)
    assert main(["zoo", "convert", str(path), "--like", ENTRY]) == 0
    assert "FCN on resnet18, 19 classes: road, sidewalk" in capsys.readouterr().out
    model = load("iter_40000.safetensors")
    assert torch.equal(model(images()), expected)
    assert model.info is not None
    assert model.info.protocol == EvaluationProtocol(fit=(2048, 1024))
    assert model.info.data["class_path"] == "Cityscapes"
    assert main(["zoo", "convert", str(path), "--like", ENTRY]) == 2
    assert "iter_40000.safetensors is there already" in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_by_its_configuration_in_every_layout(published: Weights, prefix: str) -> None:
    """Wrapped, with the copies that mmcv's averaging keeps and mmengine's constants, classes told by the file."""
    names = [f"class {i}" for i in range(19)]
    path, expected = trained(published)
    state = torch.load(path, weights_only=True)["state_dict"]
    state = {prefix + name: each for name, each in state.items()}
    state |= {"ema_backbone_conv1_weight": torch.zeros(3), "data_preprocessor.mean": torch.zeros(3, 1, 1)}
    palette = [[i, 2 * i, 3 * i] for i in range(19)]
    meta = {"dataset_meta": {"classes": names, "palette": palette}}
    torch.save({"meta": meta, "state_dict": state, "ema_state_dict": {"steps": torch.zeros(1)}}, path)
    write_configs()
    assert main(["zoo", "convert", str(path), "--config", "config.py", "--to", "mine.safetensors"]) == 0
    model = load("mine.safetensors")
    assert torch.equal(model(images()), expected)
    assert model.info is not None
    assert (model.info.classes, model.info.palette) == (tuple(names), tuple(map(tuple, palette)))
    assert model.info.protocol.fit == (2048, 1024)


def test_other_classes_than_the_published_ones(published: Weights, capsys: pytest.CaptureFixture[str]) -> None:
    path, expected = trained(published)
    content = torch.load(path, weights_only=True)
    for name, each in content["state_dict"].items():
        if "conv_seg" in name:
            content["state_dict"][name] = each[:3].clone()
    torch.save(content, path)
    convert = ["zoo", "convert", str(path), "--like", ENTRY]
    assert main(convert) == 2
    assert "does not say what its 3 classes are: give --classes" in capsys.readouterr().err
    assert main([*convert, "--classes", "cell,gap"]) == 2
    assert "--classes has 2 names, the checkpoint 3 classes" in capsys.readouterr().err
    Path("names.txt").write_text("cell\ngap\nedge\n")
    assert main([*convert, "--classes", "names.txt"]) == 0
    model = load("iter_40000.safetensors")
    assert model.info is not None
    assert model.info.classes == ("cell", "gap", "edge")
    assert model.info.data["class_path"] == ""
    torch.testing.assert_close(model(images()), expected[:, :3])


def test_a_json_configuration(published: Weights) -> None:
    path, expected = trained(published, CLASSES=[str(i) for i in range(19)])
    row = upstream_config(zoo.get(ENTRY))
    model = {key: row[key] for key in ("backbone", "decode_head", "auxiliary_head", "test_cfg")}
    Path("config.json").write_text(json.dumps({"model": {"type": "EncoderDecoder", **model}}))
    assert main(["zoo", "convert", str(path), "--config", "config.json"]) == 0
    assert torch.equal(load("iter_40000.safetensors")(images()), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_base_ = 'nowhere.py'", "config.py builds on nowhere.py, which is not there"),
        ("import os\nmodel = dict()", "config.py, line 1: 'import os' is no data, and nothing is run"),
        ("model = dict(a=open('ran', 'w'))", "line 1: \"open('ran', 'w')\" is no data"),
        ("model = __import__('os').system('touch ran')", "is no data"),
        ("x = [y for y in (1, 2)]", "is no data"),
        ("model = dict(", "is no configuration that can be read as data (SyntaxError"),
        ("_base_ = 'config.py'", "built on more files, than a configuration is"),
        ("model = 1", "describes no model with backbone and decode_head"),
        ("model = dict(type='Other', backbone=dict(), decode_head=dict())", "model type 'Other' has no counterpart"),
        ("x = 1\n" * 300000, "larger, or built on more files"),
        (MODEL.replace("contract_dilation=True", "depth=18"), "config.py"),
        (MODEL.replace(", contract_dilation=True", ""), "without contract_dilation=True has no counterpart"),
        (MODEL + DATA.replace("57.375", "0"), "are not those of RGB images"),
        (MODEL + "data_preprocessor = dict(bgr_to_rgb=False)", "bgr_to_rgb"),
    ],
)
def test_configurations_that_are_no_data(
    published: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path, _ = trained(published, CLASSES=[str(i) for i in range(19)])
    Path("config.py").write_text(text)
    before = sorted(tmp_path.iterdir())
    assert main(["zoo", "convert", str(path), "--config", "config.py"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert sorted(tmp_path.iterdir()) == before


def test_bases_merge_as_upstream_merges_them() -> None:
    write_configs()
    config = mmseg_config.read(Path("config.py"))
    assert config["model"]["decode_head"]["channels"] == 128
    assert config["model"]["decode_head"]["num_convs"] == 2
    assert "pool_scales" not in config["model"]["auxiliary_head"]
    assert config["model"]["backbone"]["dilations"] == [1, 1, 2, 4]
    with pytest.raises(InputError, match="no such file"):
        mmseg_config.read(Path("other.py"))
