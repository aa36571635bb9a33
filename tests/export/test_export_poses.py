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
from lightning_app.data.pose.facts import Keypoints
from lightning_app.heads.fcn import FCN
from lightning_app.tasks.pose.codec import Codec, Kind
from lightning_app.tasks.pose.info import PoseInfo
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.util.errors import InputError

POINTS = Keypoints(("head", "left", "right"), ((0, 1), (0, 2)), ((1, 2),), (0.05,) * 3)


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
    cz.export(model, "pose.onnx", output="keypoints")
    session = onnxruntime.InferenceSession("pose.onnx", providers=["CPUExecutionProvider"])
    points, scores = session.run(None, {"images": crops().numpy()})
    with torch.no_grad():
        expected, sure = model.codec.decode(model.maps(crops(), POINTS.flip_indices))
        plain, _ = model.codec.decode(model.maps(crops()))
    torch.testing.assert_close(torch.from_numpy(points), expected)
    torch.testing.assert_close(torch.from_numpy(scores), sure)
    assert not torch.allclose(plain, expected)
    facts = {each.key: each.value for each in onnx.load("pose.onnx").metadata_props}
    assert json.loads(facts["size"]) == [96, 64]
    keypoints = json.loads(facts["keypoints"])
    assert (keypoints["names"], keypoints["skeleton"]) == (["head", "left", "right"], [[0, 1], [0, 2]])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dark", "udp", "udp_combined"])
def test_keypoints_of_every_codec(kind: Kind) -> None:
    model = small(kind)
    cz.export(model, "pose.onnx", output="keypoints")
    session = onnxruntime.InferenceSession("pose.onnx", providers=["CPUExecutionProvider"])
    points, _ = session.run(None, {"images": crops().numpy()})
    with torch.no_grad():
        expected, _ = model.codec.decode(model(crops()))
    torch.testing.assert_close(torch.from_numpy(points), expected, atol=1e-2, rtol=0)


def test_keypoints_are_of_crops_of_one_size() -> None:
    with pytest.raises(
        InputError, match="--size 64x64: keypoints are of crops of 96x64; leave it out, or give --output"
    ):
        cz.export(small(), "pose.pt2", to="pt2", output="keypoints", size=(64, 64))
    assert list(Path().iterdir()) == []
