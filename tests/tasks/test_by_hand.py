"""A task made in Python: its checkpoint says itself what it is."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import run
from PIL import Image
from tiny import CLASSES, NoiseData, tiny_task, tiny_trainer
from torch import nn

from lightning_app.backbones.patchify import Patchify
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.data.semantic.folder import Folder
from lightning_app.heads.base import BlockHead
from lightning_app.heads.ccnet import CCNet
from lightning_app.heads.fcn import FCN
from lightning_app.tasks.semantic.protocol import EvaluationProtocol
from lightning_app.tasks.semantic.task import SegmentationTask
from lightning_app.util.errors import InputError
from lightning_app.weights.checkpoint import read_checkpoint
from lightning_app.weights.load import load


def fitted(task: SegmentationTask, folder: Path) -> Path:
    trainer = tiny_trainer(folder, callbacks=[], max_epochs=1, limit_val_batches=0)
    trainer.fit(task, NoiseData())
    trainer.save_checkpoint(folder / "mine.ckpt")
    return folder / "mine.ckpt"


def test_load_and_segment_take_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    how = EvaluationProtocol("slide", crop=(24, 32))
    task = SegmentationTask(
        TimmBackbone("test_resnet", output_stride=16, context={"layer3": {"block": "gcnet", "where": "last"}}),
        lambda in_channels, num_classes: CCNet(in_channels, num_classes, channels=8, recurrence=3, dropout=0.2),
        lambda in_channels, num_classes: FCN(in_channels, num_classes, channels=4, levels=(-2,)),
        num_classes=3,
        class_names=list(CLASSES),
        protocol=how,
    )
    path = fitted(task, tmp_path)
    model = load(path)
    assert model.info is not None
    assert (model.info.classes, model.info.protocol) == (CLASSES, how)
    assert isinstance(model.head, CCNet)
    for name, tensor in task.network.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    Image.new("RGB", (64, 48), (90, 120, 60)).save("photo.png")
    assert run(f"segment photo.png --weights {path}") == 0
    assert run(f"validate --ckpt_path {path} --run v --trainer.accelerator cpu") == 0
    assert "Loading mine.ckpt" in capsys.readouterr().out.replace(f"{tmp_path}/", "")


def test_one_align_corners_the_heads_holds_for_the_whole_network(tmp_path: Path) -> None:
    task = SegmentationTask(Patchify(8, 4), lambda i, n: FCN(i, n, channels=4, align_corners=True), num_classes=3)
    assert task.protocol == EvaluationProtocol(align_corners=True)
    info = load(fitted(task, tmp_path)).info
    assert info is not None
    assert info.protocol == task.protocol


def test_defaults_and_classes_without_names(tmp_path: Path) -> None:
    path = fitted(SegmentationTask(Patchify(8, 4), num_classes=3), tmp_path)
    info = load(path).info
    assert info is not None
    assert info.classes == ("0", "1", "2")
    assert len(info.palette) == 3
    description, _ = read_checkpoint(path)
    assert description.data.class_path == "tiny.NoiseData"
    assert (description.training.iterations, description.training.optimizer) == (3, "sgd")


class Odd(BlockHead):
    """A head whose operator is handed in."""

    def __init__(self, in_channels: list[int], num_classes: int, block: nn.Module) -> None:
        super().__init__(in_channels, num_classes, block, channels=8)


def test_what_no_file_can_describe_is_said_where_it_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fitted(SegmentationTask(Patchify(8, 4), lambda i, n: Odd(i, n, nn.Identity()), num_classes=3), tmp_path)
    with pytest.raises(InputError, match="Odd was made with block of type Identity, which no file can describe"):
        load(path)
    assert run(f"test --ckpt_path {path}") == 2
    assert capsys.readouterr().err.endswith("Odd was made with block of type Identity, which no file can describe\n")


@pytest.mark.parametrize("made", [lambda: FCN([8, 8], 3, channels=4), lambda: Patchify(8, 4, depth=1)])
def test_a_copy_knows_how_it_was_made(made: Any) -> None:
    thing = made()
    assert copy.deepcopy(thing).description() == thing.description()


def test_paths_are_described_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    monkeypatch.chdir(tmp_path)
    arguments = Folder(Path(), crop_size=(24, 32)).description()["init_args"]
    assert (arguments["root"], arguments["crop_size"]) == (str(tmp_path), [24, 32])


def test_a_wrong_argument_is_still_the_constructors_error() -> None:
    with pytest.raises(TypeError, match="width"):
        FCN([8], 3, width=3)
    arguments = tiny_task().network.backbone.description()["init_args"]
    assert (arguments["name"], arguments["output_stride"], arguments["pretrained"]) == ("resnet10t", 16, False)
