"""What is frozen stays as it is in training: weights, batch statistics, dropout; the rest trains."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import PROBE, run
from data.make_fakes import camvid
from tiny import NoiseData, tiny_task, tiny_trainer
from torch import Tensor

from lightning_app.backbones.freeze import freeze_parts
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.heads.fcn import FCN
from lightning_app.tasks.semantic.task import SegmentationTask
from lightning_app.util.errors import InputError
from lightning_app.weights.load import load


def state(task: SegmentationTask) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in task.network.state_dict().items()}


@pytest.mark.parametrize(
    ("freeze", "still"),
    [
        ("backbone", ("backbone.",)),
        (["conv1", "bn1", "layer1"], ("backbone.model.conv1.", "backbone.model.bn1.", "backbone.model.layer1.")),
    ],
)
def test_training_changes_all_but_what_is_frozen(tmp_path: Path, freeze: Any, still: tuple[str, ...]) -> None:
    task = tiny_task(freeze=freeze, weight_decay=0.1)
    before = state(task)
    trainer = tiny_trainer(tmp_path, callbacks=[], max_epochs=2)  # the second epoch comes after a validation
    trainer.fit(task, datamodule=NoiseData())
    after = state(task)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if not name.startswith(still)}


def test_the_optimiser_has_none_of_what_is_frozen() -> None:
    task = tiny_task(freeze="backbone")
    task.trainer = SimpleNamespace(estimated_stepping_batches=1)
    configured: Any = task.configure_optimizers()
    (group,) = configured["optimizer"].param_groups
    assert group["name"] == "head"
    assert len(group["params"]) == len(list(task.network.head.parameters()))


def test_what_is_frozen_drops_nothing() -> None:
    backbone = TimmBackbone("vit_tiny_patch16_224", drop_path_rate=0.5)
    task = SegmentationTask(backbone, lambda widths, classes: FCN(widths, classes, channels=8), freeze="backbone")
    task.train()
    assert task.network.head.training
    images = torch.rand(2, 3, 64, 64)
    first, second = (backbone(images)[-1] for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad


def test_a_part_that_is_not_there_is_named() -> None:
    backbone = TimmBackbone("tf_efficientnet_lite0")
    with pytest.raises(InputError, match=r'no part "block.1". Did you mean "blocks.1"\? \(backbone, conv_stem, bn1'):
        freeze_parts(backbone, ["conv_stem", "block.1"])


def test_one_part_needs_no_brackets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")
    for number, typed in enumerate(("patches", "[patches]")):
        assert run(f"fit {PROBE} --run {number} --trainer.max_epochs 1 --model.freeze {typed}") == 0
    first, second = (torch.load(f"runs/{n}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for n in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_frozen_transformer_trains_a_light_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe, on a tiny transformer and tiny streets: only the head moves, the second epoch computes nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")
    camvid(tmp_path / "camvid")
    typed = (
        "fit -c recipes/semantic/frozen_vit --data.root camvid --data.crop_size [32,48] --data.batch_size 2 "
        "--data.versions 1 --model.backbone.name test_vit2 --model.backbone.pretrained false "
        "--model.backbone.drop_path_rate 0.5 --trainer.accelerator cpu --trainer.check_val_every_n_epoch 1 --run vit"
    )
    assert run(f"{typed} --trainer.max_epochs 1") == 0
    kept = sorted(tmp_path.glob("runs/features/*/*.safetensors"))
    first = torch.load("runs/vit/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert run("fit --run vit --ckpt_path last --trainer.max_epochs 2") == 0
    second = torch.load("runs/vit/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    after = sorted(tmp_path.glob("runs/features/*/*.safetensors"))
    assert {*kept} <= {*after}
    assert len(kept) <= len(after) <= 5 + 3  # training and validation, whose last image a batch may leave out
    moved = {name for name, value in first.items() if not torch.equal(value, second[name])}
    assert moved
    assert all(name.startswith("network.head.") for name in moved), moved
    head = load("runs/vit/checkpoints/last.ckpt").head
    assert (type(head).__name__, head.levels) == ("Linear", (0, 1, 2, 3))
