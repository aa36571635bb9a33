"""Exported files: they give what the network gives, say what they are, and are not kept where they do not."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm.layers.padding
import torch
from commands import run
from PIL import Image
from tiny import CLASSES
from torch import Tensor, nn
from weights import write_tiny

import contextzoo as cz
from lightning_app.backbones.patchify import Patchify
from lightning_app.export.graphs import SHAPES, Mismatch
from lightning_app.export.onnx import check
from lightning_app.export.recording import _padding_in_whole_numbers
from lightning_app.heads.fcn import FCN
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def small(head: type[FCN] = FCN) -> Segmentor:
    torch.manual_seed(0)
    model = Segmentor(Patchify(8, levels=1), head([8], 3, channels=8)).eval()
    nn.init.normal_(model.head.classifier.weight)
    return model


def of_onnx(path: str, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def said(path: str) -> dict[str, str]:
    return {each.key: each.value for each in onnx.load(path).metadata_props}


def test_the_command_line_writes_classes_that_know_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny(Path("street.safetensors"))
    assert run("export street.safetensors --to onnx --output classes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Wrote tiny.onnx"
    assert lines[1].startswith("As the network: 1x3x192x256 ")
    assert lines[1].count(" ok") == len(SHAPES) == 3
    images = torch.rand(3, 3, 50, 71)  # another batch and size than any that was looked at
    model = cz.load("street.safetensors")
    with torch.no_grad():
        expected = model(images).argmax(1)
    found = of_onnx("tiny.onnx", images)
    assert found.dtype == torch.uint8
    assert (found == expected).float().mean() > 0.999
    assert len(found.unique()) > 1
    facts = said("tiny.onnx")
    assert json.loads(facts["classes"]) == list(CLASSES)
    assert json.loads(facts["palette"]) == [list(colour) for colour in model.info.palette]
    assert json.loads(facts["protocol"])["mode"] == "whole"
    assert facts["task"] == "semantic"
    sides = onnx.load("tiny.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_param or side.dim_value for side in sides] == ["batch", 3, "height", "width"]


def test_a_program_of_torch_export_in_python() -> None:
    model = small()
    done = cz.export(model, "small.pt2", to="pt2")
    assert max(check.difference for check in done.checks) < 1e-5
    extra = {"contextzoo.json": ""}
    program = torch.export.load("small.pt2", extra_files=extra).module()
    images = torch.rand(1, 3, 90, 41)
    with torch.no_grad():
        torch.testing.assert_close(program(images), model(images))
    facts = json.loads(extra["contextzoo.json"])
    assert facts["mean"] == [0.5, 0.5, 0.5]
    assert facts["outputs"] == ["logits"]


@pytest.mark.slow
def test_sizes_that_timm_rounds_up_are_kept_in_a_program() -> None:
    """resnet10t's average pools pad by math.ceil, which no file of torch.export holds."""
    model = cz.create_model("fcn", "resnet10t", num_classes=2, channels=8).eval()
    cz.export(model, "padded.pt2", to="pt2")
    program = torch.export.load("padded.pt2").module()
    images = torch.rand(1, 3, 101, 67)
    with torch.no_grad():
        torch.testing.assert_close(program(images), model(images))


def test_half_precision_is_half_as_large_and_takes_float32() -> None:
    model = small()
    cz.export(model, "whole.pt2", to="pt2")
    done = cz.export(model, "half.pt2", to="pt2", half=True)
    program = torch.export.load("half.pt2")
    weights = [each for each in program.state_dict.values() if each.is_floating_point()]
    assert {each.dtype for each in weights} == {torch.float16}
    assert program.module()(torch.rand(1, 3, 64, 64)).dtype == torch.float32
    assert 1e-5 < max(check.difference for check in done.checks) < 3e-2
    assert model.mean.dtype == torch.float32


class Liar(FCN):
    """Says something else where a graph is recorded."""

    def forward(self, features: Any) -> Tensor:
        return super().forward(features) + (1 if torch.compiler.is_exporting() else 0)


class Stiff(FCN):
    """Reads the size of the example as if it were every image's."""

    def forward(self, features: Any) -> Tensor:
        size = [-1, *(int(side) for side in features[0].shape[1:])]
        return super().forward([features[0].view(size)])


class Undecided(FCN):
    """Goes by what it sees."""

    def forward(self, features: Any) -> Tensor:
        logits = super().forward(features)
        return logits if logits.amax() > 0 else -logits


def test_what_cannot_be_recorded_is_said_in_one_line_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"^Segmentor cannot be recorded for any size; for one, give --size HxW: .+$"):
        cz.export(small(Undecided), "undecided.pt2", to="pt2")
    assert capsys.readouterr() == ("", "")
    assert list(Path().iterdir()) == []


def test_what_differs_from_the_network_is_not_kept() -> None:
    with pytest.raises(Mismatch, match=r"At 1x3x192x256 it differs from the network by \de"):
        cz.export(small(Liar), "liar.pt2", to="pt2")
    with pytest.raises(Mismatch, match="At 1x3x192x256"):
        cz.export(small(Stiff), "stiff.pt2", to="pt2")
    assert list(Path().iterdir()) == []


def test_one_size_alone_is_for_what_cannot_be_free() -> None:
    model = small(Stiff)
    cz.export(model, "stiff.pt2", to="pt2", size=(64, 96))
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load("stiff.pt2").module()(images), model(images))


@pytest.mark.slow
def test_packages_of_the_compiler() -> None:
    model = small()
    cz.export(model, "small.aoti.pt2", to="aoti")
    package = torch._inductor.aoti_load_package("small.aoti.pt2")
    images = torch.rand(3, 3, 77, 45)
    with torch.no_grad():
        torch.testing.assert_close(package(images), model(images))
    assert json.loads(package.get_metadata()["contextzoo"])["outputs"] == ["logits"]


@pytest.mark.slow
def test_convolutions_in_8_bits_keep_most_classes() -> None:
    Path("photos").mkdir()
    generator = np.random.default_rng(0)
    for number in range(4):
        pixels = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((96, 64)).save(f"photos/{number}.png")
    model = small()
    done = cz.export(model, "small.onnx", int8="photos")
    assert done.agreement is not None
    assert 0.9 < done.agreement <= 1
    kinds = {node.op_type for node in onnx.load("small.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert sorted(each.name for each in Path().iterdir()) == ["photos", "small.onnx"]


BAD = {
    "--to onnxx": "argument --to: invalid choice: 'onnxx' (choose from",
    "--to onnx --out there.onnx": "there.onnx is there already: move it, or give another name",
    "--to onnx --out folder": "folder is a folder: give the name of a file in it, such as folder/model.onnx",
    "--to onnx --out nowhere/a.onnx": "nowhere: no such folder",
    "--to pt2 --out a.onnx": "a.onnx: a name that ends in .pt2",
    "--to pt2 --output maps": "--output maps: Segmentor gives logits or classes",
    "--to pt2 --size 12": "'12': give HEIGHTxWIDTH, such as 512x1024",
    "--to pt2 --int8 folder": "8 bits are for segmentors as ONNX, without half",
    "--to onnx --int8 nowhere": "nowhere: no such folder of photographs to calibrate with",
    "--to onnx --int8 folder": "folder: no photographs to calibrate with (known: ",
    "--to onnx --half --int8 folder": "not allowed with argument",
}


@pytest.mark.parametrize("typed", BAD)
def test_bad_input_is_one_line(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny(Path("street.safetensors"))
    Path("there.onnx").write_text("mine")
    Path("folder").mkdir()
    before = sorted(Path().iterdir())
    assert run(f"export street.safetensors {typed}") == 2
    error = capsys.readouterr().err
    assert BAD[typed] in error
    assert error.count("\n") == 1
    assert sorted(Path().iterdir()) == before
    assert Path("there.onnx").read_text() == "mine"


def test_weights_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export nowhere.safetensors --to onnx") == 2
    assert capsys.readouterr().err == "nowhere.safetensors: no such file\n"


def test_what_a_format_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"The weights are 3.6 GB, and an ONNX file holds 2 GB: give --half"):
        check(nn.Linear(30000, 30000, device="meta"))
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler, and there is no /nowhere/g\+\+: install one"):
        cz.export(small(), "small.pt2", to="aoti")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"ONNX needs onnxruntime: pip install .*export"):
        cz.export(small(), "small.onnx")
    with pytest.raises(InputError, match="Linear cannot be exported"):
        cz.export(nn.Linear(1, 1), "linear.pt2", to="pt2")
    assert list(Path().iterdir()) == []


def test_padding_is_timms_in_whole_numbers() -> None:
    usual = timm.layers.padding.get_same_padding
    with _padding_in_whole_numbers():
        ours = timm.layers.padding.get_same_padding
    assert timm.layers.padding.get_same_padding is usual
    for side, kernel, stride, dilation in itertools.product(range(1, 40), (1, 2, 3, 5), (1, 2, 3, 4), (1, 2)):
        assert ours(side, kernel, stride, dilation) == usual(side, kernel, stride, dilation)
