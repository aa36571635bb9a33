"""Networks as folders: made in Python, loaded or trained; saved, loaded, and for other classes."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny import CLASSES, PALETTE, NoiseData, tiny_task, tiny_trainer
from weights import ENTRY, openmmlab_file, write_tiny

import contextzoo as cz
from lightning_app.backbones.patchify import Patchify
from lightning_app.heads.fcn import FCN
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError
from lightning_app.weights.description import Description

IMAGES = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
PHOTOGRAPH = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)


def small(classes: int | list[str] = 3) -> Any:
    torch.manual_seed(0)
    return cz.create_model("ccnet", "test_resnet", num_classes=classes, channels=8, recurrence=1).eval()


def test_a_new_network(tmp_path: Path) -> None:
    model = small(["leaf", "soil"])
    assert model.save_pretrained(tmp_path / "mine") == tmp_path / "mine"
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["README.md", "model.safetensors"]
    again = cz.load(tmp_path / "mine")
    assert torch.equal(again(IMAGES), model(IMAGES))
    assert (again.info.name, again.info.classes) == ("ccnet_test_resnet", ("leaf", "soil"))
    assert again.head.block.recurrence == 1
    assert again.predict(PHOTOGRAPH).mask.shape == (24, 32)


def test_saved_again_it_is_replaced(tmp_path: Path) -> None:
    model = small()
    model.save_pretrained(tmp_path, name="first", picture=PHOTOGRAPH, licence="MIT")
    with torch.no_grad():
        model.head.classifier.bias += 1
    model.save_pretrained(tmp_path, name="second", half=True)
    assert torch.allclose(cz.load(tmp_path)(IMAGES), model(IMAGES), atol=0.01)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.get_tensor("head.classifier.weight").dtype == torch.float16
    assert "# second" in (tmp_path / "README.md").read_text()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", ["own", "openmmlab"])
def test_what_was_loaded_keeps_what_it_knows(tmp_path: Path, kind: str) -> None:
    if kind == "own":
        write_tiny(
            tmp_path / "tiny.safetensors", licences={"weights": "CC0-1.0"}, metrics={"miou": 12.5, "source": "me"}
        )
        model = cz.load(tmp_path / "tiny.safetensors")
    else:
        model = cz.load(openmmlab_file(tmp_path))
    model.save_pretrained(tmp_path / "copy")
    again = cz.load(tmp_path / "copy")
    assert torch.equal(again(IMAGES), model(IMAGES))
    known = {name: value for name, value in vars(again.info).items() if name not in ("parts", "provenance", "split")}
    assert known == {name: vars(model.info)[name] for name in known}
    card = (tmp_path / "copy" / "README.md").read_text()
    assert ("license: cc0-1.0" if kind == "own" else "license: apache-2.0") in card
    assert ("mIoU | 12.50 (me)" if kind == "own" else f"# {ENTRY}") in card


def test_a_trained_task_knows_its_data(tmp_path: Path) -> None:
    task = tiny_task()
    with pytest.raises(InputError, match=r"has had no trainer: call trainer\.fit"):
        task.save_pretrained(tmp_path / "task")
    trainer = tiny_trainer(tmp_path, callbacks=[], max_epochs=1)
    trainer.fit(task, NoiseData())
    task.save_pretrained(tmp_path / "task", name="noise")
    model = cz.load(tmp_path / "task")
    assert torch.equal(model(IMAGES), task.network.eval()(IMAGES))
    assert (model.info.classes, model.info.palette) == (CLASSES, PALETTE)
    assert model.info.metrics == {"mIoU": pytest.approx(100 * task.reports["val"].figures["mIoU"])}
    assert model.info.training["iterations"] == 3
    card = (tmp_path / "task" / "README.md").read_text()
    assert re.search(r"\| trained \| 3 steps of \d images, SGD, lr 0\.01 \|", card)
    assert "| begun from | random weights |" in card
    assert torch.equal(cz.load(tmp_path / "task")(IMAGES), model(IMAGES))


def test_statistics_beyond_half_precision_stay_whole(tmp_path: Path) -> None:
    model = small()
    name = next(name for name, _ in model.named_buffers() if name.endswith("running_var"))
    model.get_buffer(name)[0] = 1e5
    model.save_pretrained(tmp_path / "a", half=True)
    assert cz.load(tmp_path / "a").get_buffer(name)[0] == 1e5


def test_what_cannot_be_saved_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    by_hand = Segmentor(Patchify(8, 4), FCN([8], 3, channels=8))
    with pytest.raises(InputError, match="made by hand"):
        by_hand.save_pretrained(tmp_path / "a")
    with pytest.raises(InputError, match="cannot be called 'a/b'"):
        small().save_pretrained(tmp_path / "b", name="a/b")
    with torch.no_grad():
        (large := small()).head.classifier.bias[0] = 1e5
    with pytest.raises(InputError, match="beyond half precision's 65504"):
        large.save_pretrained(tmp_path / "c", half=True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file, not a folder"):
        small().save_pretrained(tmp_path / "file")
    write_tiny(tmp_path / "tiny.safetensors")
    with pytest.raises(InputError, match=r"holds other weights \(tiny\.safetensors\): give another folder"):
        small().save_pretrained(tmp_path)


def test_other_classes_keep_all_but_the_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = write_tiny(tmp_path / "tiny.safetensors", metrics={"miou": 50.0, "source": "me"})
    model = cz.load(tmp_path / "tiny.safetensors", num_classes=5)
    line = capsys.readouterr().err
    assert line.startswith("tiny: Loaded ")
    assert line.count("\n") == 1
    assert "New: head.classifier.{weight,bias}, auxiliary.classifier.{weight,bias} (3 -> 5 classes)." in line
    new = {name for name, value in model.state_dict().items() if value.shape != tensors[name].shape}
    assert new == {f"{head}.classifier.{each}" for head in ("head", "auxiliary") for each in ("weight", "bias")}
    assert all(torch.equal(value, tensors[name]) for name, value in model.state_dict().items() if name not in new)
    assert model(IMAGES).shape == (1, 5, 40, 56)
    assert model.info.classes == ("0", "1", "2", "3", "4")
    assert (model.info.metrics, model.info.provenance) == ({}, {"begun from": "tiny"})
    named = cz.load(tmp_path / "tiny.safetensors", num_classes=["a", "b"])
    assert named.predict(PHOTOGRAPH).classes == ("a", "b")
    for wrong in (0, -1, 10**9, "abc", []):
        with pytest.raises(InputError, match=r"num_classes is .*: give a number of classes from 1 on, or their names"):
            cz.load(tmp_path / "tiny.safetensors", num_classes=wrong)


def test_other_classes_of_published_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = cz.load(openmmlab_file(tmp_path), num_classes=2)
    assert "New: head.classifier.{weight,bias}" in capsys.readouterr().err
    assert model(IMAGES).shape[1] == 2


BACKBONE = {"class_path": "lightning_app.backbones.timm.TimmBackbone", "init_args": {"name": "test_resnet"}}
OTHER_TASKS = {
    "instance": (
        {"classes": ["disc", "square"], "masks": True, "image_size": [48, 64]},
        {"backbone": BACKBONE, "channels": 16, "hidden": 16},
    ),
    "pose": (
        {"keypoints": {"names": ["nose", "tail"], "skeleton": [[0, 1]], "flip_pairs": [], "sigmas": [0.1, 0.1]}},
        {"backbone": BACKBONE, "head": {"class_path": "lightning_app.heads.fcn.FCN", "init_args": {"channels": 8}}},
    ),
}


@pytest.mark.parametrize("task", OTHER_TASKS)
def test_weights_of_every_task(tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]) -> None:
    facts, model = OTHER_TASKS[task]
    content = {"name": "tiny", "task": task, "model": model, "data": {}, **facts}
    description = Description.from_dict(content, "tiny")
    network = description.facts.network(model, "tiny").eval()
    network.info = description.info
    network.save_pretrained(tmp_path / "first", picture=PHOTOGRAPH)
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == [
        "README.md",
        "model.safetensors",
        "picture.jpg",
    ]
    again = cz.load(tmp_path / "first")
    assert again.info == network.info.__class__(**{**vars(network.info), "provenance": again.info.provenance})
    before = network.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in again.state_dict().items())

    other = cz.load(tmp_path / "first", num_classes=["a", "b", "c", "d"])
    line = capsys.readouterr().err
    assert line.startswith("tiny: Loaded ")
    assert line.count("\n") == 1
    assert "(2 -> 4 " in line
    new = [name for name, value in other.state_dict().items() if value.shape != before[name].shape]
    wanted = ("predictor", "score", "class", "box", "mask", "logits") if task == "instance" else ("head.classifier",)
    assert new
    assert all(any(word in name for word in wanted) for name in new), new
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items() if name not in new)
    assert other.info.outputs == 4
    other.save_pretrained(tmp_path / "second")
    assert cz.load(tmp_path / "second").info.outputs == 4
