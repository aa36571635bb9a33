"""The public face: what ``import contextzoo`` gives."""

import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from weights import write_tiny

import contextzoo as cz
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS
from lightning_app.tasks.semantic.network import Segmentor


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = "import sys, contextzoo; print(sorted({'torch', 'lightning', 'timm', 'numpy', 'zoo'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_examples_in_docstrings() -> None:
    known = dict(HEADS._entries)
    try:
        result = doctest.testmod(cz)
    finally:
        HEADS._entries = known
    assert result.attempted > 8
    assert result.failed == 0


def test_every_public_name_has_a_docstring_with_an_example() -> None:
    for name in cz.__all__:
        if name != "__version__":
            assert ">>> " in (getattr(cz, name).__doc__ or ""), name


@pytest.mark.parametrize("head", ["ccnet", "CCNet", "cc-net"])
def test_create_model(head: str) -> None:
    model = cz.create_model(head, "resnet10t", num_classes=3, output_stride=16, channels=8, recurrence=1)
    assert isinstance(model, Segmentor)
    assert model.head.block.recurrence == 1  # type: ignore[union-attr]
    assert model.eval()(torch.rand(1, 3, 33, 47)).shape == (1, 3, 33, 47)


def test_create_model_from_a_file_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    weights = torch.load(path, weights_only=True)
    for given in (path, str(path)):
        model = cz.create_model("fcn", "test_resnet", num_classes=3, channels=8, pretrained=given)
        parameters = dict(model.backbone.model.named_parameters())  # type: ignore[operator,union-attr]
        assert torch.equal(parameters["layer1.0.conv1.weight"], weights["layer1.0.conv1.weight"])
    with pytest.raises(ValueError, match=r"nothing\.pth"):
        cz.create_model("fcn", "test_resnet", num_classes=3, pretrained="nothing.pth")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"head": "ccnte"}, 'Did you mean "ccnet"?'),
        ({"backbone": "resnet5000"}, 'Unknown timm model "resnet5000"'),
        ({"channls": 8}, "channls"),
        ({"output_stride": 7}, "output_stride 7"),
    ],
)
def test_create_model_says_what_is_wrong(arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        cz.create_model(**{"head": "ccnet", "backbone": "resnet10t", "num_classes": 3} | arguments)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_list_weights() -> None:
    entries = cz.list_weights(head="ccnet", dataset="ade20k")
    assert {(entry.head, entry.dataset) for entry in entries} == {("ccnet", "ade20k")}
    with pytest.raises(ValueError, match="ccnet"):
        cz.list_weights(head="cnet")


def test_segment_is_predict_of_loaded_weights(tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny.safetensors")
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    result = cz.segment(picture, weights=tmp_path / "tiny.safetensors")
    assert result.mask.shape == (40, 60)
    assert (result.mask == cz.load(tmp_path / "tiny.safetensors").predict(picture).mask).all()


class Doubled(BlockHead):
    """x -> 2 x."""

    def __init__(self, in_channels: list[int], num_classes: int, *, channels: int = 16) -> None:
        super().__init__(in_channels, num_classes, nn.Upsample(scale_factor=1), channels=channels)


def test_a_head_of_ones_own() -> None:
    try:
        cz.register_head("doubled")(Doubled)
        assert "doubled" in cz.list_heads()
        model = cz.create_model("doubled", "resnet10t", num_classes=2)
        assert isinstance(model.head, Doubled)
    finally:
        HEADS._entries.pop("doubled", None)
    with pytest.raises(ValueError, match='There is a head "ccnet" already'):
        cz.register_head("ccnet")
