"""Checkpoints and headers from strangers: a spec that runs a command is put at every place of one, one at a time.

Whatever a command then says, nothing may have run and nothing may have been fetched.
"""

import copy
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from attacks.tally import Tally
from attacks.traps import MARKER, Trap
from commands import PROBE, run
from PIL import Image
from safetensors.torch import save_file
from weights import describe_tiny, write_tiny

from lightning_app.app import configs
from lightning_app.app.saved import configuration
from lightning_app.tasks.semantic.task import SegmentationTask
from lightning_app.util.errors import InputError
from lightning_app.weights.checkpoint import read_checkpoint
from lightning_app.weights.description import HEADER, Description
from lightning_app.weights.load import load

SHIPPED = Path(__file__).parents[2] / "checkpoints"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a short run."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CONTEXTZOO_RUN", "")
        assert (
            run(f"fit {PROBE} --run a --trainer.max_epochs 1 --model.auxiliary FCN --model.auxiliary.channels 4") == 0
        )
    return folder / "runs" / "a" / "checkpoints" / "last.ckpt"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")  # restored after the test
    monkeypatch.syspath_prepend(tmp_path)
    Image.new("RGB", (40, 40)).save("photo.png")


def payloads(url: str) -> dict[str, Any]:
    """What runs a command, or fetches, where it is instantiated, imported, called, opened or read again."""
    popen = {"class_path": "subprocess.Popen", "init_args": {"args": f"touch {MARKER}", "shell": True}}
    text = json.dumps(popen)
    Path("spec.yaml").write_text(text)
    Path("stranger.py").write_text(f"open({MARKER!r}, 'w')\nclass Head: ...\n")
    return {
        "spec": popen,
        "in a dictionary": {"x": popen},
        "in a list": [popen],
        "deep": {"x": [{"y": [popen]}]},
        "text": text,
        "escaped": text.replace("class_path", "class\\u005fpath"),
        "text in a dictionary": {"x": text.replace("class_path", "class\\u005fpath")},
        "function": "os.system",
        "function as class": {"class_path": "os.system", "init_args": {"command": f"touch {MARKER}"}},
        "module": {"class_path": "stranger.Head"},
        "callback": {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"setup": "os.system"}},
        "file": "spec.yaml",
        "address": url,
        "address as class": {"class_path": url},
        "python": {"class_path": "builtins.exec", "init_args": {"source": f"open({MARKER!r}, 'w')"}},
    }


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a tree, its branches included."""
    if path:
        yield path
    pairs = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ()
    for key, each in pairs:
        yield from places(each, (*path, key))


def planted(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    tree = copy.deepcopy(tree)
    branch = tree
    for key in path[:-1]:
        branch = branch[key]
    branch[path[-1]] = value
    return tree


def with_room(tree: Any) -> Any:
    """The tree with values under those arguments that take anything."""
    tree = copy.deepcopy(tree)
    tree["backbone"] = {
        "class_path": "lightning_app.backbones.timm.TimmBackbone",
        "init_args": {
            "name": "test_resnet",
            "changes": {"multi_grid": [1]},
            "context": {"layer3": {"block": "gcnet", "where": "last"}},
        },
    }
    tree["head"] = {
        "class_path": "lightning_app.heads.smp.Smp",
        "init_args": {"decoder": "Unet", "decoder_options": {"attention_type": "scse"}},
    }
    return tree


def walk(tree: Any, trap: Trap, use: Callable[[Any], object], *, every: int = 1) -> tuple[int, int]:
    """Plant each payload at each place and use the tree; how many were tried, and how many came through."""
    tried = bad = 0
    values = payloads(trap.url)
    for number, (path, name) in enumerate((path, name) for path in places(tree) for name in values):
        if number % every == 0:
            tried += 1
            with suppress(InputError):  # refused, in one line
                use(planted(tree, path, values[name]))
            bad += trap.sprung()
    return tried, bad


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["sample", "all"])
def whole(request: pytest.FixtureRequest) -> bool:
    """Whether all of the walk is made, or a sample of it."""
    return bool(request.param)


def test_headers(trap: Trap, tally: Tally, whole: bool) -> None:
    tensors = write_tiny(Path("a.safetensors"))

    def use(description: Any) -> None:
        save_file(tensors, "b.safetensors", {HEADER: json.dumps(description)})
        load("b.safetensors")

    for model in (lambda tree: tree, with_room):
        tree = describe_tiny() | {"model": model(describe_tiny()["model"])}
        tried, bad = walk(tree, trap, use, every=1 if whole else 97)
        tally("headers", tried, bad)
        assert bad == 0


def test_checkpoints_in_python(checkpoint: Path, trap: Trap, tally: Tally, whole: bool) -> None:
    content = torch.load(checkpoint, weights_only=True)

    def use(tree: Any) -> None:
        torch.save(content | tree, "b.ckpt")
        for python in (load, SegmentationTask.load_from_checkpoint):
            with suppress(InputError):
                python("b.ckpt")
        configuration(tree["config"], Path("b.ckpt"), SegmentationTask, resume=True, trust=False)

    tree = {"config": content["config"], "hyper_parameters": content["hyper_parameters"]}
    tried, bad = walk(tree, trap, use, every=1 if whole else 151)
    tally("checkpoints", tried, bad)
    assert bad == 0


VERBS = {
    "test": "test --ckpt_path b.ckpt",
    "validate": "validate --ckpt_path b.ckpt",
    "predict": "predict --ckpt_path b.ckpt",
    "resume": "fit --ckpt_path b.ckpt --trainer.max_epochs 1",
    "start": f"fit {PROBE} --model.weights b.ckpt --trainer.max_steps 1",
    "evaluate": "test --weights b.ckpt",
    "segment": "segment photo.png --weights b.ckpt",
    "publish": "zoo publish b.ckpt --id fcn_stranger_context-probe-40x40_3 --to out --data-licence none",
}


@pytest.mark.parametrize("verb", VERBS)
def test_checkpoints_in_commands(verb: str, checkpoint: Path, trap: Trap, tally: Tally, whole: bool) -> None:
    content = torch.load(checkpoint, weights_only=True)
    values = payloads(trap.url)
    chosen = [
        ("model", "backbone"),
        ("model", "head", "init_args", "channels"),
        ("model", "weights"),
        ("data",),
        ("data", "init_args", "cells"),
        ("trainer", "callbacks"),
        ("trainer", "callbacks", 0),
        ("trainer", "logger"),
        ("trainer", "plugins"),
        ("trainer", "profiler"),
        ("trainer", "default_root_dir"),
    ]
    room = with_room(content["config"]["model"])
    inner = [("model", *path) for path in places(room) if {"changes", "context", "decoder_options"} & set(path)]
    tried = bad = 0
    for number, (path, name) in enumerate((path, name) for path in (*chosen, *inner) for name in values):
        if number % (3 if whole else 97) == 0:
            config = copy.deepcopy(content["config"])
            config["model"] = room if path in inner else config["model"]
            torch.save(content | {"config": planted(config, path, values[name])}, "b.ckpt")
            tried += 1
            assert run(VERBS[verb]) in (0, 1, 2)
            bad += trap.sprung()
    tally("checkpoints", tried, bad)
    assert bad == 0


def test_configurations_of_cards(trap: Trap, tally: Tally, whole: bool) -> None:
    file = sorted(SHIPPED.glob("*/config.yaml"))[0]
    tree = yaml.safe_load(file.read_text())

    def use(content: Any) -> None:
        Path("b.yaml").write_text(yaml.safe_dump(content))
        run("fit -c b.yaml --print_config")

    tried, bad = walk(tree, trap, use, every=31 if whole else 1501)
    tally("configurations", tried, bad)
    assert bad == 0


class Gadget:
    """What a pickle runs when it is read."""

    def __reduce__(self) -> Any:
        return (Path(MARKER).touch, ())


@pytest.mark.parametrize("suffix", [".ckpt", ".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("save", [torch.save, lambda content, path: Path(path).write_bytes(pickle.dumps(content))])
def test_pickles(suffix: str, save: Callable[[Any, str], None], trap: Trap, tally: Tally) -> None:
    for content in (Gadget(), {"state_dict": {"a": Gadget()}, "config": {}, "hyper_parameters": {}}, [Gadget()]):
        name = f"b{suffix}"
        save(content, name)
        with pytest.raises(InputError, match="b"):
            load(name)
        for command in (f"test --ckpt_path {name}", f"segment photo.png --weights {name}", f"test --weights {name}"):
            assert run(command) == 2
        bad = trap.sprung()
        tally("pickles", 4, bad)
        assert bad == 0
    assert configs.FOLDER.is_dir()


STRANGER = """
from lightning_app.heads.fcn import FCN
class Head(FCN): ...
"""


def test_a_head_of_ones_own_is_imported_where_it_is_trusted(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("heads_of_mine.py").write_text(STRANGER)
    content = torch.load(checkpoint, weights_only=True)
    content["config"]["model"]["head"]["class_path"] = "heads_of_mine.Head"
    torch.save(content, "b.ckpt")
    capsys.readouterr()
    assert run("test --ckpt_path b.ckpt") == 2
    assert capsys.readouterr().err == (
        "b.ckpt: its model.head is heads_of_mine.Head, which is no class of this program: if it is yours, import its "
        "module first (--import heads_of_mine)\n"
    )
    with pytest.raises(InputError, match="import its module first"):
        load("b.ckpt")
    assert run("test --ckpt_path b.ckpt --trust") == 0
    assert type(load("b.ckpt").head).__name__ == "Head"  # it is imported now


def test_what_is_not_taken_to_resume_is_said(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["config"]["trainer"]["callbacks"].append({"class_path": "lightning.pytorch.callbacks.LambdaCallback"})
    content["config"]["trainer"]["plugins"] = [{"class_path": "os.system"}]
    torch.save(content, "b.ckpt")
    assert run("fit --ckpt_path b.ckpt --run b --trainer.max_epochs 1") == 0
    said = "Not taken from b.ckpt: trainer.LambdaCallback, trainer.plugins; give it again where it is wanted\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("name", ["logger/csv", "logger/tensorboard", "logger/wandb", "schedule/ema"])
def test_what_ships_is_taken_to_resume(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(f"fit {PROBE} -c {name} --print_config") == 0
    content = yaml.safe_load(capsys.readouterr().out)
    config, left = configuration(content, Path("b.ckpt"), SegmentationTask, resume=True, trust=False)
    assert left == []
    given, taken = (
        [each["class_path"] for part in ("callbacks", "logger") for each in listed(trainer[part])]
        for trainer in (content["trainer"], config["trainer"])
    )
    assert taken == given


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def header(**changes: Any) -> str:
    return json.dumps(describe_tiny() | changes)


MALFORMED = {
    "no JSON": "{",
    "a list": "[1, 2]",
    "a number": "5",
    "not a number": header(metrics={"miou": float("nan")}),
    "deep": "[" * 10_000,
    "long": json.dumps({"x": "y" * 2**21}),
    "classes": header(classes=5),
    "no classes": header(classes=[]),
    "many classes": header(classes=["x"] * 100_000),
    "short palette": header(palette=[[0, 0, 0]]),
    "bright palette": header(palette=[[0, 0, 256]] * 3),
    "protocol": header(protocol={"mode": "whole", "moode": 1}),
    "protocol mode": header(protocol={"mode": "hole"}),
    "model": header(model=[]),
    "parts": header(model=describe_tiny()["model"] | {"backbone": []}),
    "name": header(name="a\nb"),
    "data": header(data=7),
    "task": header(task=5),
    "tasks": header(task=["semantic"]),
    "no task": header(task=""),
    "another task": header(task="os"),
    "climbing task": header(task="../semantic"),
    "module of a task": header(task="semantic.network"),
    "lines of tasks": header(task="semantic\nos"),
    "long task": header(task="x" * 100_000),
    "no figures": header(metrics={"figures": 5}),
    "text as a figure": header(metrics={"figures": {"mIoU": "50"}}),
    "a figure that is none": header(metrics={"figures": {"mIoU": float("inf")}}),
    "without classes": json.dumps({key: each for key, each in describe_tiny().items() if key != "classes"}),
    "without protocol": json.dumps({key: each for key, each in describe_tiny().items() if key != "protocol"}),
}
for channels in (-8, 0, 10**7, 2**20, 2**70, 1.5, "8", True, None):
    model = describe_tiny()["model"] | {
        "head": {"class_path": "lightning_app.heads.fcn.FCN", "init_args": {"channels": channels}}
    }
    MALFORMED[f"channels {channels}"] = header(model=model)
for argument in ("depth", "levels", "patch", "channels"):
    model = describe_tiny()["model"] | {
        "backbone": {"class_path": "lightning_app.backbones.patchify.Patchify", "init_args": {argument: 10**6}}
    }
    MALFORMED[f"{argument} of a backbone"] = header(model=model)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_description_is_one_line(name: str, tally: Tally) -> None:
    tensors = write_tiny(Path("a.safetensors"))
    save_file(tensors, "b.safetensors", {HEADER: MALFORMED[name]})
    with pytest.raises(InputError) as caught:
        load("b.safetensors")
    tally("descriptions", 1, "\n" in str(caught.value))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["a list", "classes", "channels 10000000"])
@pytest.mark.parametrize(
    "command",
    [
        "test --weights b.safetensors",
        "segment photo.png --weights b.safetensors",
        f"fit {PROBE} --model.weights b.safetensors",
    ],
)
def test_it_is_one_line_of_every_command(name: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(write_tiny(Path("a.safetensors")), "b.safetensors", {HEADER: MALFORMED[name]})
    assert run(command.format("b.safetensors")) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_walk_finds_what_is_wrong(trap: Trap) -> None:
    """A reader that believes what it reads springs the traps."""

    def believe(tree: Any) -> None:
        for path in places(tree):
            value = tree
            for key in path:
                value = value[key]
            if isinstance(value, dict) and value.get("class_path") == "subprocess.Popen":
                Path(MARKER).touch()

    tried, bad = walk({"a": {"b": 1}}, trap, believe)
    assert tried == 2 * len(payloads(trap.url))
    assert bad > 0


def test_a_published_header_and_a_checkpoint_still_load(checkpoint: Path) -> None:
    write_tiny(Path("a.safetensors"))
    assert load("a.safetensors").info
    assert read_checkpoint(checkpoint)[0].facts.labels
    assert Description.from_header({HEADER: header()}, Path("x")).name == "tiny"
