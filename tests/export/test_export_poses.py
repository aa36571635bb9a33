"""Exported pose estimators: maps of crops of any size, or keypoints of crops of the codec's."""

import json
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

import contextzoo as cz
from lightning_app.backbones.patchify import Patchify
from lightning_app.data.pose.facts import Keypoints as Facts
from lightning_app.export.poses import Keypoints
from lightning_app.heads.fcn import FCN
from lightning_app.tasks.pose.codec import KINDS, Codec, Kind
from lightning_app.tasks.pose.info import PoseInfo
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.util.errors import InputError

POINTS = Facts(("head", "left", "right"), ((0, 1), (0, 2)), ((1, 2),), (0.05,) * 3)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def small(kind: Kind = "msra") -> PoseEstimator:
    torch.manual_seed(0)
    codec = Codec(kind, input_size=(96, 64))
    head = FCN([8], 3 * codec.maps_per_point, channels=8)
    return PoseEstimator(Patchify(8, patch=4, levels=1), head, codec).eval()


def crops() -> Tensor:
    return torch.rand(3, 3, 96, 64, generator=torch.Generator().manual_seed(1))


def test_maps_of_crops_of_any_size() -> None:
    model = small()
    cz.export(model, "pose.pt2", to="pt2", output="maps")
    extra = {"contextzoo.json": ""}
    program = torch.export.load("pose.pt2", extra_files=extra).module()
    for size in ((96, 64), (128, 80)):
        images = torch.rand(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(program(images), model(images))
    codec = json.loads(extra["contextzoo.json"])["codec"]
    assert (codec["kind"], codec["input_size"], codec["heatmap_size"]) == ("msra", [96, 64], [24, 16])


def test_keypoints_are_those_of_the_codec_and_of_the_mirror() -> None:
    model = small()
    model.info = PoseInfo(name="bees", keypoints=POINTS, codec=model.codec, flip_test=True)
    cz.export(model, "pose.pt2", to="pt2", output="keypoints")
    extra = {"contextzoo.json": ""}
    points, scores = torch.export.load("pose.pt2", extra_files=extra).module()(crops())
    with torch.no_grad():
        expected, sure = model.codec.decode(model.maps(crops(), POINTS.flip_indices))
        plain, _ = model.codec.decode(model.maps(crops()))
    torch.testing.assert_close(points, expected)
    torch.testing.assert_close(scores, sure)
    assert not torch.allclose(plain, expected)
    facts = json.loads(extra["contextzoo.json"])
    assert (facts["size"], facts["keypoints"]["names"]) == ([96, 64], ["head", "left", "right"])
    assert facts["keypoints"]["skeleton"] == [[0, 1], [0, 2]]


def test_points_that_hang_on_the_last_digits_are_not_compared_and_others_are() -> None:
    graph = Keypoints(small("udp"))
    images = crops()
    with torch.no_grad():
        points, scores = graph(images)
        assert graph.difference(images, (points, scores)) == 0
        assert graph.difference(images, (points + 1, scores)) == pytest.approx(1 / 96, rel=1e-3)
        assert graph.difference(images, (points, 2 * scores)) == pytest.approx(1, rel=1e-3)
        flat = torch.zeros(1, 3, 96, 64)
        graph.network.maps = lambda *_: torch.ones(1, 3, 24, 16)
        points, scores = graph(flat)
        assert graph.difference(flat, (points + 1, scores)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_keypoints_of_every_codec(kind: Kind) -> None:
    model = small(kind)
    cz.export(model, "pose.onnx", output="keypoints")
    session = onnxruntime.InferenceSession("pose.onnx", providers=["CPUExecutionProvider"])
    found = [torch.from_numpy(each) for each in session.run(None, {"images": crops().numpy()})]
    with torch.no_grad():
        assert Keypoints(model).difference(crops(), found) < 1e-4
    (images,) = onnx.load("pose.onnx").graph.input
    sides = images.type.tensor_type.shape.dim
    assert [side.dim_param or side.dim_value for side in sides] == ["batch", 3, 96, 64]


def test_keypoints_are_of_crops_of_one_size() -> None:
    with pytest.raises(
        InputError, match="--size 64x64: keypoints are of crops of 96x64; leave it out, or give --output"
    ):
        cz.export(small(), "pose.pt2", to="pt2", output="keypoints", size=(64, 64))
    assert list(Path().iterdir()) == []
