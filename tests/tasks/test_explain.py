"""Where an answer comes from: in Python, on the command line, for networks of every task."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from weights import describe_tiny, write_tiny

import contextzoo as cz
from lightning_app.app.cli import main
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.data.pose.facts import Keypoints
from lightning_app.heads.fcn import FCN
from lightning_app.tasks.explain import Box, Seen, View, explain
from lightning_app.tasks.explain_draw import heat
from lightning_app.tasks.instance.info import InstanceInfo
from lightning_app.tasks.instance.network import InstanceSegmentor
from lightning_app.tasks.pose.codec import Codec
from lightning_app.tasks.pose.info import PoseInfo
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError
from lightning_app.weights.load import load

PATCHES = {"class_path": "lightning_app.backbones.patchify.Patchify", "init_args": {"channels": 8}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a photograph."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(256, size=(50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path


def with_head(name: str, backbone: Any = None, **options: Any) -> str:
    """A file of tiny weights with this head, on a backbone whose last level has 4 x 5 positions of 50 x 70 pixels."""
    path = {"class_path": f"lightning_app.heads.{name}", "init_args": {"channels": 8, **options}}
    model = describe_tiny()["model"] | {"head": path, "auxiliary": None}
    model["backbone"] = backbone or model["backbone"]
    write_tiny(Path("head.safetensors"), model=model)
    return "head.safetensors"


class Tiny(nn.Module):
    """A 3x3 convolution that explains itself."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 2, 3, padding=1)

    def seen(self, pixels: Tensor, at: tuple[int, int]) -> Seen:
        return Seen(pixels[None] / 255, Box(0, 0, pixels.shape[2], pixels.shape[1]))

    def answer(self, image: Tensor, at: tuple[int, int]) -> tuple[Tensor, str]:
        return self.backbone(image)[0, 1, at[0], at[1]], "one"


def test_the_gradient_of_a_3x3_convolution_reaches_3x3_pixels() -> None:
    found = explain(Tiny(), "a.png", (20, 30))
    (view,) = found.views
    expected = np.zeros((50, 70), dtype=bool)
    expected[29:32, 19:22] = True
    np.testing.assert_array_equal(view.weights > 0, expected)
    assert (found.by, found.answer) == ("gradient", "one")
    assert view.weights.sum() == pytest.approx(1)
    assert view.within(1) == pytest.approx(2**0.5)
    np.testing.assert_array_equal(
        explain(Tiny(), "a.png", (0, 49)).views[0].weights > 0, np.pad([[True] * 2] * 2, ((48, 0), (0, 68)))
    )


def test_attention_lies_on_the_grid_of_the_padded_picture() -> None:
    """50 x 70 is padded to 56 x 72: 7 x 9 positions of 8 pixels."""
    found = cz.explain("a.png", weights=with_head("ccnet.CCNet", PATCHES), at=(40, 20))
    first, second, both = found.views
    assert found.by == "attention"
    cross = np.zeros((7, 9), dtype=bool)
    cross[2], cross[:, 5] = True, True
    np.testing.assert_array_equal(first.weights > 0, cross)
    np.testing.assert_array_equal(second.weights > 0, cross)
    assert (both.weights > 0).all()
    assert first.box == Box(0, 0, 72, 56)
    assert [view.name for view in found.views] == ["pass 1", "pass 2", "through 2 passes"]
    model, pixels = load("head.safetensors"), torch.from_numpy(found.image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        x = model.head.reduce(model.features(pixels)[-1])
        expected = model.head.block.looks((2, 5), x)
    for view, look in zip(found.views, expected, strict=True):
        np.testing.assert_allclose(view.weights, look.weights, rtol=1e-4)
    classes = model(pixels)[0, :, 20, 40].softmax(0)
    assert found.answer == f"{model.info.classes[int(classes.argmax())]}, {100 * classes.max():.0f} %"


def test_the_window_around_the_point_is_seen(folder: Path) -> None:
    write_tiny(folder / "w.safetensors", protocol={"mode": "slide", "crop": [32, 32], "scales": [1.0]})
    found = cz.explain("a.png", weights="w.safetensors", at=(60, 10), by="gradient")
    assert found.views[0].box == Box(38, 0, 70, 32)
    assert found.views[0].weights.shape == (32, 32)
    write_tiny(folder / "w.safetensors", protocol={"mode": "whole", "scales": [1.0], "fit": [140, 140]})
    found = cz.explain("a.png", weights="w.safetensors", at=(60, 10), by="gradient")
    assert (found.views[0].box, found.views[0].weights.shape) == (Box(0, 0, 70, 50), (100, 140))


def test_several_blocks_are_told_apart_and_modes_stay() -> None:
    model = load(with_head("ann.ANN", key_channels=4, scales=[1, 3])).train()
    hooks = [len(module._forward_hooks) for module in model.modules()]
    names = [view.name for view in explain(model, "a.png", (3, 4)).views]
    assert names[0] == "fusion: through 10 anchors"
    assert "head: through 10 anchors" not in names
    assert sum(name.endswith("through 10 anchors") for name in names) == 2
    assert model.training
    assert hooks == [len(module._forward_hooks) for module in model.modules()]


def test_explain_as_typed(capsys: pytest.CaptureFixture[str]) -> None:
    weights = with_head("nonlocal_net.NonLocal")
    assert main(f"explain a.png --weights {weights} --at 40,20".split()) == 0
    lines = capsys.readouterr()
    assert lines.err == ""
    assert lines.out.startswith("a.png at 40,20: ")
    assert lines.out.splitlines()[0].endswith("-> explained/a_40_20.jpg")
    assert lines.out.splitlines()[1].startswith("  embedded_gaussian: half within ")
    facts = json.loads(Path("explained/a_40_20.json").read_text())
    assert (facts["by"], facts["at"], facts["views"][0]["grid"]) == ("attention", [40, 20], [4, 5])
    assert Image.open("explained/a_40_20.jpg").width > 500
    assert main(f"explain a.png --weights {weights} --at 40,20 --by gradient --out g".split()) == 0
    assert json.loads(Path("g/a_40_20.json").read_text())["by"] == "gradient"


def test_a_network_without_attention_falls_to_the_gradient_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    weights = with_head("fcn.FCN")
    assert main(f"explain a.png --weights {weights} --at 0,0".split()) == 0
    assert capsys.readouterr().err == f"No block of {weights} says where it looks: this is the gradient's reach\n"
    assert main(f"explain a.png --weights {weights} --at 0,0 --by attention".split()) == 2
    assert "give --by gradient" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("a.png --at 70,20", "The point 70,20 lies outside of a.png, which is 70x50: give x from 0 to 69"),
        ("a.png --at 7", "'7' is no point"),
        ("a.png --at -1,5", "at"),
        ("a.png --at 1,5 --by magic", "magic"),
        ("b.png --at 1,5", "b.png: no such file"),
        ("a.png", "--at"),
    ],
)
def test_what_cannot_be_explained_is_one_line(typed: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    weights = with_head("fcn.FCN")
    assert main(["explain", *typed.split(), "--weights", weights]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not Path("explained").exists()


def test_a_point_outside_in_python() -> None:
    with pytest.raises(InputError, match="The point 0,-1 lies outside of the picture, which is 70x50"):
        explain(Tiny(), Image.open("a.png"), (0, -1))
    with pytest.raises(InputError, match="by"):
        explain(Tiny(), "a.png", (0, 0), by="magic")  # type: ignore[arg-type]


def test_keypoints_are_explained_in_the_photograph() -> None:
    backbone, codec = TimmBackbone("resnet10t", out_indices=[1]), Codec("udp", (64, 48))
    network = PoseEstimator(backbone, FCN(backbone.channels, 3, channels=64, num_convs=0, concat_input=False), codec)
    points = Keypoints(("head", "waist", "tail"), sigmas=(0.05,) * 3)
    network.info = PoseInfo(name="bees", keypoints=points, codec=codec)
    found = explain(network, "a.png", (35, 25))
    (view,) = found.views
    assert found.answer.partition(",")[0] in points.names
    assert view.weights.shape == (64, 48)
    left, top, right, bottom = view.box  # 70 x 50 with a quarter more, and as high as crops of 3 to 4
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((35, 25))
    assert (right - left, bottom - top) == pytest.approx((87.5, 87.5 * 4 / 3))
    assert view.within(0.9) < 40  # the first level of a ResNet sees little


def test_an_object_is_explained_and_a_point_without_one_says_so() -> None:
    torch.manual_seed(0)
    network = InstanceSegmentor(
        TimmBackbone("resnet10t"), 2, channels=8, hidden=8, size=(100, 140), score_threshold=0.0, max_detections=5
    )
    network.info = InstanceInfo(name="shapes", classes=("square", "disc"))
    best = network.predict("a.png")
    left, top, right, bottom = best.boxes[0]
    middle = int((left + right) / 2), int((top + bottom) / 2)
    found = explain(network, "a.png", middle)
    assert found.answer.startswith(f"{best.names[0]}, score {best.scores[0]:.2f}")
    assert (found.by, found.views[0].weights.shape, found.views[0].box) == ("gradient", (100, 140), Box(0, 0, 70, 50))
    network.roi_heads.score_thresh = 1.0
    with pytest.raises(InputError, match="No object is found at this point"):
        explain(network, "a.png", middle)


def test_blocks_inside_a_backbone_say_where_they_look() -> None:
    backbone = TimmBackbone("resnet10t", context={"layer4": {"block": "gcnet"}, "layer3": {"block": "ccnet"}})
    network = Segmentor(backbone, FCN(backbone.channels, 3, channels=8))
    network.info = load(with_head("fcn.FCN")).info
    names = [view.name for view in explain(network, "a.png", (35, 25)).views]
    assert len(names) == 4
    assert names[0].endswith(": pass 1")
    assert names[-1].endswith(": global context")


def test_weights_are_drawn_where_they_lie() -> None:
    weights = np.zeros((2, 4), dtype=np.float32)
    weights[0, 3], weights[1, 0] = 1, -0.25
    values = heat(View("v", "signed", weights, Box(0, 0, 40, 20), (0, 0)), (40, 20), (40, 20))
    assert values[:10, 30:].min() == 1
    assert values[10:, :10].max() == -0.5
    assert not values[:10, :30].any()
    half = heat(View("v", "share", abs(weights), Box(20, 0, 40, 20), (0, 0)), (40, 20), (40, 20))
    assert np.isnan(half[:, :20]).all()
    assert half[0, 39] == 1
    shrunk = heat(View("v", "share", np.eye(400, dtype=np.float32), Box(0, 0, 40, 40), (0, 0)), (40, 40), (40, 40))
    np.testing.assert_array_equal(np.diag(shrunk), np.ones(40))
