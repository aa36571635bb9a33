"""Weights of detectors and of pose estimators that lie, are damaged, or are something else: one line, nothing left."""

import copy
import json
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from attacks.tally import Tally
from commands import run
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_app.data.pose.facts import Keypoints
from lightning_app.tasks.instance.weights import InstanceFacts
from lightning_app.tasks.pose.weights import PoseFacts
from lightning_app.util.errors import InputError
from lightning_app.weights.description import HEADER, Description
from lightning_app.weights.load import load

BACKBONE = {"class_path": "lightning_app.backbones.timm.TimmBackbone", "init_args": {"name": "test_resnet"}}
DETECTOR = {
    "backbone": BACKBONE,
    "channels": 8,
    "hidden": 8,
    "pyramid": "fpn",
    "regions": "level",
    "cascade": False,
    "mask_upsample": "deconv",
    "anchor_scale": 4.0,
    "score_threshold": 0.05,
    "max_detections": 10,
    "channels_last": False,
}
HEAD = {"class_path": "lightning_app.heads.fcn.FCN", "init_args": {"channels": 8, "levels": [0]}}
CODEC = {"kind": "udp", "input_size": [64, 48], "heatmap_size": None, "sigma": 2.0, "blur_kernel": 11, "radius": 0.05}
ESTIMATOR = {"backbone": BACKBONE, "head": HEAD, "codec": CODEC, "channels_last": False}
TASKS: dict[str, tuple[dict[str, Any], Any]] = {
    "instance": (DETECTOR, InstanceFacts(("cell", "bud"), True, (48, 64))),
    "pose": (ESTIMATOR, PoseFacts(Keypoints(("nose", "tail"), ((0, 1),), ((0, 1),), (0.05, 0.1)))),
}
NASTY: tuple[Any, ...] = (None, -1, 0, 2**40, 2**70, 1e308, True, "x", "http://a.b/c", "\x1b[2J")
NASTY += ([], [[]], {}, {"a": 1}, [2**31] * 2, {"class_path": "os.system"}, ["cell"] * 20_000)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def tensors() -> dict[str, dict[str, Tensor]]:
    torch.manual_seed(0)
    return {task: facts.network(model, task).state_dict() for task, (model, facts) in TASKS.items()}


def said(task: str) -> dict[str, Any]:
    """What a good file of a task says of itself."""
    model, facts = TASKS[task]
    return copy.deepcopy(Description(name="tiny", task=task, model=model, facts=facts).as_dict())


def written(content: Any, tensors: dict[str, Tensor]) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    save_file(tensors, "a.safetensors", {HEADER: text})
    return Path("a.safetensors")


def line_of(path: Path) -> str:
    """The one line that refuses a file."""
    with pytest.raises(InputError) as caught:
        load(path)
    line = str(caught.value)
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 1000
    return line


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in plain data, of containers too."""
    if at:
        yield at
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in pairs:
        yield from leaves(each, (*at, key))


def put(content: Any, at: tuple[Any, ...], value: Any) -> Any:
    """The content with another value at a place."""
    changed = copy.deepcopy(content)
    inner = changed
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return changed


@pytest.mark.parametrize("task", TASKS)
def test_a_good_file_is_loaded(task: str, tensors: dict[str, dict[str, Tensor]]) -> None:
    model = load(written(said(task), tensors[task]))
    assert model.info.task == task
    assert all(torch.equal(each, tensors[task][name]) for name, each in model.state_dict().items())
    assert model.predict(Image.new("RGB", (60, 50))) is not None


WRONG: list[tuple[str, tuple[Any, ...], Any, str]] = [
    *[
        (task, ("model", "backbone", "init_args", "name"), "resnet9000", 'Unknown timm model "resnet9000"')
        for task in TASKS
    ],
    *[(task, ("model", "backbone", "class_path"), "subprocess.Popen", "no class of this program") for task in TASKS],
    *[(task, ("model", "sharpness"), 1, "it has no ['sharpness']") for task in TASKS],
    *[(task, ("model", "backbone"), None, "it has no backbone") for task in TASKS],
    *[(task, ("task",), "semantic", "palette, protocol") for task in TASKS],
    *[(task, ("task",), "panoptic", "which is none of this program") for task in TASKS],
    ("instance", ("task",), "pose", "it has no keypoints"),
    ("pose", ("task",), "instance", "it has no classes, image_size, masks"),
    ("instance", ("classes",), ["cell"], "The weights do not fit tiny"),
    ("instance", ("classes",), ["cell"] * 10_001, "not a list of names"),
    ("instance", ("classes",), 5, "its classes are 5, not a list of names"),
    ("instance", ("masks",), 1, "its masks are 1, not true or false"),
    ("instance", ("masks",), False, "The weights do not fit tiny"),
    ("instance", ("image_size",), [64, 48], "not a short and a long side of up to 10000"),
    ("instance", ("image_size",), [48, 10**6], "not a short and a long side of up to 10000"),
    ("instance", ("image_size",), "48", "its image_size is 48"),
    ("instance", ("model", "channels"), 2**40, "its model cannot be built"),
    ("instance", ("model", "hidden"), 2**20, "larger than its weights"),
    ("instance", ("model", "hidden"), 0, "hidden 0: give a number above 0"),
    ("instance", ("model", "pyramid"), "pafpn", "cannot have pyramid = pafpn"),
    ("instance", ("model", "cascade"), True, "The weights do not fit tiny"),
    ("instance", ("model", "anchor_scale"), 0, "anchor_scale 0"),
    ("instance", ("model", "anchor_scale"), "8", "cannot have anchor_scale = 8"),
    ("instance", ("model", "score_threshold"), 2.0, "score_threshold 2.0: give a score from 0 to 1"),
    ("instance", ("model", "max_detections"), -1, "max_detections -1"),
    ("pose", ("keypoints",), ["nose", "tail"], "its keypoints is ['nose', 'tail'], not names and values"),
    ("pose", ("keypoints", "names"), ["nose"], "2 sigmas for 1 keypoints"),
    ("pose", ("keypoints", "names"), ["nose", 5], "cannot have names = ['nose', 5]"),
    ("pose", ("keypoints", "names"), ["nose", "\x1b"], "is no plain text"),
    ("pose", ("keypoints", "sigmas"), [0.05, 0], "sigma 0"),
    ("pose", ("keypoints", "skeleton"), [[0, 2]], "skeleton [0, 2]: keypoints are counted from 0 to 1"),
    ("pose", ("keypoints", "flip_pairs"), [[0, 0]], "in two pairs, or in one with itself"),
    ("pose", ("flip_test",), "no", "cannot have flip_test = no"),
    ("pose", ("nms",), [], "cannot have nms = []"),
    ("pose", ("model", "codec", "kind"), "heat", "cannot have kind = heat"),
    ("pose", ("model", "codec", "input_size"), [0, 48], "input_size (0, 48) is no height and width"),
    ("pose", ("model", "codec", "input_size"), [10**6, 10**6], "where 4096 pixels are the most"),
    ("pose", ("model", "codec", "blur_kernel"), 10, "not an odd number of pixels"),
    ("pose", ("model", "codec", "kind"), "udp_combined", "The weights do not fit tiny"),
    ("pose", ("model", "head", "init_args", "num_classes"), 3, "has no num_classes"),
    ("pose", ("model", "head", "init_args", "levels"), [9], "a level that is not among the backbone's"),
]


@pytest.mark.parametrize(("task", "at", "value", "message"), WRONG)
def test_a_header_that_lies_is_one_line(
    task: str, at: tuple[Any, ...], value: Any, message: str, tensors: dict[str, dict[str, Tensor]]
) -> None:
    assert message in line_of(written(put(said(task), at, value), tensors[task]))
    assert [path.name for path in Path().iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("task", TASKS)
def test_any_value_anywhere_is_one_line_or_a_model(
    task: str, tensors: dict[str, dict[str, Tensor]], tally: Tally
) -> None:
    content, dice = said(task), random.Random(0)
    attacks = [(at, value) for at in leaves(content) for value in NASTY]
    for at, value in dice.sample(attacks, 40):
        path = written(put(content, at, value), tensors[task])
        line = ""
        try:
            load(path).predict(Image.new("RGB", (60, 50)))
        except InputError as error:
            line = str(error)
        bad = "\n" in line or "\x1b" in line or len(line) > 1000
        tally("values in headers of detectors and pose estimators", 1, bad)
        assert not bad, (at, value)
    assert not Path("pwned").exists()


@pytest.mark.parametrize("task", TASKS)
def test_a_header_that_is_no_record_is_one_line(task: str, tensors: dict[str, dict[str, Tensor]]) -> None:
    good = json.dumps(said(task))
    for text in ("", "{", "[]", "5", "null", '"x"', "[" * 100_000, good[:-1], good.replace("0.05", "NaN"), "{}"):
        assert "does not say how to rebuild its model" in line_of(written(text, tensors[task])), text[:20]
    assert "characters of itself" in line_of(written(" " * 2**21, tensors[task]))
    deep: Any = {}
    for _ in range(500):
        deep = {"a": deep}
    nested = put(said(task), ("model", "backbone", "init_args"), deep)
    assert "in one another" in line_of(written(nested, tensors[task]))


@pytest.mark.parametrize("task", TASKS)
def test_tensors_that_do_not_fit_are_one_line(task: str, tensors: dict[str, dict[str, Tensor]]) -> None:
    first, *others = tensors[task]
    good = {name: each.clone() for name, each in tensors[task].items()}
    for wrong in (
        {name: good[name] for name in others},
        {**good, "more": torch.ones(1)},
        {**good, first: good[first][:1]},
        {**good, first: good[first].to(torch.int32)},
        {**good, first: good[first] * torch.nan},
        {},
    ):
        assert "do not fit tiny" in line_of(written(said(task), wrong))


@pytest.mark.parametrize("task", TASKS)
def test_another_kind_of_file_or_a_damaged_one_is_one_line(task: str, tensors: dict[str, dict[str, Tensor]]) -> None:
    path = written(said(task), tensors[task])
    content = path.read_bytes()
    assert load_file(path).keys() == tensors[task].keys()
    for cut in (0, 7, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        assert "a.safetensors" in line_of(path)

    class Command:
        def __reduce__(self) -> Any:
            return Path.touch, (Path("pwned"),)

    path.write_bytes(pickle.dumps(Command()))
    assert "no safetensors file that can be read" in line_of(path)
    torch.save({"state_dict": Command()}, "mask-rcnn_r50-fpn_coco_1x.pth")
    assert "mask-rcnn_r50-fpn_coco_1x.pth" in line_of(Path("mask-rcnn_r50-fpn_coco_1x.pth"))
    assert not Path("pwned").exists()


@pytest.mark.parametrize("task", TASKS)
def test_commands_refuse_such_files_and_leave_nothing(
    task: str, tensors: dict[str, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    written(put(said(task), ("model", "backbone", "init_args", "name"), "resnet9000"), tensors[task])
    Image.new("RGB", (60, 50)).save("photo.png")
    data = {"instance": "COCOInstances", "pose": "COCOKeypoints"}[task]
    for typed in (
        "infer photo.png --weights a.safetensors",
        f"test --weights a.safetensors --data {data} --data.root .",
        f"fit --model.weights a.safetensors --data {data} --data.root .",
    ):
        assert run(typed) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert 'Unknown timm model "resnet9000"' in line
    assert sorted(path.name for path in Path().iterdir()) == ["a.safetensors", "photo.png"]
