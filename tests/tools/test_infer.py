"""The infer command as typed, for weights of any task."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from attacks.test_detectors_and_poses import TASKS, said
from PIL import Image
from safetensors.torch import save_file
from weights import write_tiny

from lightning_app.app.cli import main
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.data.pose.facts import Keypoints
from lightning_app.heads.fcn import FCN
from lightning_app.tasks.instance.info import InstanceInfo
from lightning_app.tasks.instance.network import InstanceSegmentor
from lightning_app.tasks.pose.codec import Codec
from lightning_app.tasks.pose.info import PoseInfo
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.tools import infer
from lightning_app.weights.description import HEADER


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with weights and a photograph of two."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "tiny.safetensors")
    Image.effect_noise((70, 50), 80).convert("RGB").save("photo.png")


def test_class_maps_as_segment_writes_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["infer", "photo.png", "--weights", "tiny.safetensors"]) == 0
    assert capsys.readouterr().out.endswith("-> inferred/photo.png\n")
    assert main(["segment", "photo.png", "--weights", "tiny.safetensors"]) == 0
    names = ["photo.json", "photo.png", "photo_overlay.jpg"]
    assert sorted(path.name for path in Path("inferred").iterdir()) == names
    for name in names:
        assert Path("inferred", name).read_bytes() == Path("segmented", name).read_bytes()


def test_help_names_every_task_and_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["infer", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "class numbers (NAME.png)" in said
    assert "--window H W|N|none" in said
    assert "boxes and masks in COCO's words (NAME.json)" in said
    assert "keypoints as COCO's results (NAME.json)" in said


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> InstanceSegmentor:
    """What --weights shapes means."""
    torch.manual_seed(0)
    network = InstanceSegmentor(
        TimmBackbone("resnet10t"), 2, channels=8, hidden=8, size=None, score_threshold=0.05, max_detections=5
    ).eval()
    network.info = InstanceInfo(name="shapes", classes=("square", "disc"))
    monkeypatch.setattr(infer, "load", lambda weights, **options: network)
    return network


@pytest.fixture
def estimator(monkeypatch: pytest.MonkeyPatch) -> PoseEstimator:
    """What --weights bees means."""
    backbone, codec = TimmBackbone("resnet10t"), Codec("udp", (64, 64))
    network = PoseEstimator(backbone, FCN(backbone.channels, 3, channels=8), codec).eval()
    points = Keypoints(("head", "waist", "tail"), skeleton=((0, 1), (1, 2)), sigmas=(0.05,) * 3)
    network.info = PoseInfo(name="bees", keypoints=points, codec=codec, flip_test=False)
    monkeypatch.setattr(infer, "load", lambda weights, **options: network)
    return network


def test_objects_outlined_and_in_cocos_words(detector: InstanceSegmentor, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["infer", "photo.png", "--weights", "shapes", "--score", "0.01", "--out", "out"]) == 0
    said = capsys.readouterr().out
    facts = json.loads(Path("out/photo.json").read_text())
    assert (facts["height"], facts["width"], len(facts["objects"])) == (50, 70, 5)
    assert {each["class"] for each in facts["objects"]} <= {"square", "disc"}
    assert min(each["score"] for each in facts["objects"]) >= 0.01
    assert facts["objects"][0]["segmentation"]["size"] == [50, 70]
    assert said.startswith("photo.png: ")
    assert said.endswith("-> out/photo_overlay.jpg\n")
    assert main(["infer", "photo.png", "--weights", "shapes", "--score", "1", "--out", "none"]) == 0
    assert "nothing found" in capsys.readouterr().out
    assert json.loads(Path("none/photo.json").read_text())["objects"] == []
    assert Image.open("none/photo_overlay.jpg").format == "JPEG"


@pytest.mark.parametrize("out", ["photo.png", "photo.png/below"])
def test_a_file_in_the_place_of_the_results(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("infer photo.png", "segment photo.png", "explain photo.png --at 3,4"):
        assert main([*command.split(), "--weights", "never-read", "--out", out]) == 2
        assert capsys.readouterr().err == "photo.png is a file, not a folder: give another place\n"


def test_keypoints_of_the_whole_photo_and_of_boxes(
    estimator: PoseEstimator, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["infer", "photo.png", "--weights", "bees", "--boxes"]
    assert main([*command, "whole"]) == 0
    (only,) = json.loads(Path("inferred/photo.json").read_text())
    assert (only["bbox"], len(only["keypoints"])) == ([0, 0, 70, 50], 9)
    Path("boxes.json").write_text('{"photo.png": [[0, 0, 30, 40], [20, 10, 70, 50]]}')
    assert main([*command, "boxes.json"]) == 0
    named = Path("inferred/photo.json").read_text()
    assert [each["bbox"] for each in json.loads(named)] == [[0, 0, 30, 40], [20, 10, 50, 40]]
    Path("detected.json").write_text('{"objects": [{"bbox": [0, 0, 30, 40]}, {"bbox": [20, 10, 50, 40]}]}')
    assert main([*command, "detected.json"]) == 0
    assert Path("inferred/photo.json").read_text() == named
    assert Image.open("inferred/photo_overlay.jpg").format == "JPEG"
    assert "photo.png: 2 poses of 3 keypoints, scores " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (None, 2, "--boxes boxes.json: No such file or directory. Give a JSON file, or whole"),
        ("{", 2, "--boxes boxes.json is not JSON"),
        ("[1]", 2, "--boxes boxes.json: give {photo's name: [[left, top, right, bottom], ...]}"),
        ('{"objects": [{"bbox": [1]}]}', 2, "--boxes boxes.json: its objects have no bbox"),
        ('{"photo.png": [[9, 0, 3, 4]]}', 2, "boxes.json, photo.png: boxes[0] is [9.0, 0.0, 3.0, 4.0]"),
        ('{"photo.png": "all"}', 2, "boxes.json, photo.png: boxes are no table of numbers"),
        ('{"other.png": [[0, 0, 3, 4]]}', 1, "photo.png: No boxes. boxes.json has none of photo.png"),
    ],
)
def test_boxes_that_cannot_be_used(
    content: str | None, status: int, message: str, estimator: PoseEstimator, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path("boxes.json").write_text(content)
    assert main(["infer", "photo.png", "--weights", "bees", "--boxes", "boxes.json"]) == status
    assert message in capsys.readouterr().err
    assert not Path("inferred").exists()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--score", "0.3"], "--score is for weights of the task instance, and tiny.safetensors is of semantic\n"),
        (["--boxes", "whole"], "--boxes is for weights of the task pose, and tiny.safetensors is of semantic\n"),
        (["--score", "2"], "'2' is not a score from 0 to 1"),
    ],
)
def test_options_of_another_task(typed: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["infer", "photo.png", "--weights", "tiny.safetensors", *typed]) == 2
    assert message in capsys.readouterr().err
    assert not Path("inferred").exists()


@pytest.fixture
def both() -> None:
    """A detector of cells and buds, and an estimator of their keypoints, as files."""
    torch.manual_seed(0)
    for task, (model, facts) in TASKS.items():
        save_file(facts.network(model, task).state_dict(), f"{task}.safetensors", {HEADER: json.dumps(said(task))})


POSES = ["infer", "photo.png", "--weights", "pose.safetensors", "--detector"]


def test_keypoints_of_what_a_detector_finds(both: None, capsys: pytest.CaptureFixture[str]) -> None:
    detector = ["infer", "photo.png", "--weights", "instance.safetensors", "--score", "0.01", "--out", "found"]
    assert main(detector) == 0
    objects = json.loads(Path("found/photo.json").read_text())["objects"]
    assert main([*POSES, "instance.safetensors", "--score", "0.01"]) == 0
    poses = json.loads(Path("inferred/photo.json").read_text())
    assert len(poses) == len(objects) > 0
    looked_at, boxes = (np.array([each["bbox"] for each in found]) for found in (poses, objects))
    apart = np.abs(looked_at[:, None] - boxes).max(-1)
    assert max(apart.min(0).max(), apart.min(1).max()) < 0.01
    assert main([*POSES, "instance.safetensors", "--score", "0.01", "--detector-class", "bud"]) == 0
    buds = json.loads(Path("inferred/photo.json").read_text())
    assert len(buds) == sum(each["class"] == "bud" for each in objects)
    capsys.readouterr()
    assert main([*POSES, "instance.safetensors", "--score", "1"]) == 0
    assert "photo.png: 0 poses of 2 keypoints" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["tiny.safetensors"], "tiny.safetensors is of the task semantic, and weights of instance are wanted here"),
        (["nowhere"], 'Unknown weights "nowhere"'),
        (["instance.safetensors", "--boxes", "whole"], "--boxes and --detector both say where to look"),
        (["instance.safetensors", "--detector-class", "bee"], 'instance.safetensors finds no "bee"'),
        (["instance.safetensors", "--score", "-1"], "'-1' is not a score from 0 to 1"),
    ],
)
def test_a_detector_that_cannot_be_used(
    typed: list[str], message: str, both: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*POSES, *typed]) == 2
    assert message.replace("instance.safetensors finds", "tiny finds") in capsys.readouterr().err
    assert not Path("inferred").exists()


def test_what_goes_with_a_detector_alone(both: None, capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--score", "0.3"], ["--detector-class", "bud"]):
        assert main([*POSES[:-1], *option]) == 2
        assert f"{option[0]} goes with --detector ID" in capsys.readouterr().err


def test_boxes_of_one_photo_are_not_anothers(both: None, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (70, 50)).save("z.png")
    Path("one.json").write_text('{"objects": [{"bbox": [0, 0, 30, 40]}]}')
    assert main(["infer", "photo.png", "z.png", "--weights", "pose.safetensors", "--boxes", "one.json"]) == 1
    assert "z.png: No boxes. one.json is of one photo" in capsys.readouterr().err
