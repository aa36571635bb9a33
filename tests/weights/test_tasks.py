"""Weights of a second task, as a user would add one: trained, published, listed, shown, loaded, and attacked."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
import torch
from own_zoo import own_zoo
from PIL import Image
from safetensors.torch import load_file, save_file
from tasks.heatmaps import Heatmapper, HeatmapTask
from torch import Tensor

import contextzoo as cz
import zoo
from lightning_app.app.cli import main
from lightning_app.reading import specs
from lightning_app.tasks.info import Info
from lightning_app.util.errors import InputError
from lightning_app.weights.checkpoint import read_checkpoint
from lightning_app.weights.description import HEADER
from lightning_app.weights.facts import Facts, is_text
from lightning_app.weights.parts import new_segmentor
from zoo import index
from zoo.datasets import Dataset
from zoo.details import TASKS, details_of
from zoo.entry import FIELDS

ID = "fcn_patchify_scenes-40x40_2"
SCENES = Dataset("scenes", "Scenes", "Scenes", "drawn: no terms", "yes", None, keypoints=("rows", "columns"))


@dataclass(frozen=True, kw_only=True)
class HeatmapInfo(Info):
    task: str = "heatmaps"
    maps: tuple[str, ...]
    told: ClassVar[str] = "maps"

    @property
    def outputs(self) -> int:
        return len(self.maps)


@dataclass(frozen=True)
class HeatmapFacts(Facts[Heatmapper]):
    maps: tuple[str, ...]

    parts = ("backbone", "head")
    figures = ("rmse",)
    pipeline = "keypoint-detection"

    @classmethod
    def read(cls, content: Mapping[str, Any], where: str) -> Self:
        maps = content["maps"]
        if not isinstance(maps, list) or not 0 < len(maps) < 100 or not all(map(is_text, maps)):
            raise InputError(f"{where}: its maps are {specs.shown(maps)}, not a list of names")
        return cls(tuple(maps))

    @classmethod
    def of_run(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        return {"maps": content["hyper_parameters"]["map_names"]}

    @property
    def labels(self) -> tuple[str, ...]:
        return self.maps

    def network(self, model: Mapping[str, Any], name: str) -> Heatmapper:
        made = new_segmentor(model, len(self.maps), name)
        return Heatmapper(made.backbone, made.head)

    def info(self, **shared: Any) -> HeatmapInfo:
        return HeatmapInfo(maps=self.maps, **shared)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("run")
    typed = """fit --task heatmaps --data Scenes --data.batch_size 2 --data.num_workers 0 --model.backbone Patchify
        --model.backbone.channels 8 --model.head FCN --model.head.channels 8 --trainer.max_epochs 1
        --trainer.limit_train_batches 2 --trainer.accelerator cpu --trainer.devices 1 --run maps"""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(HeatmapTask, "facts", HeatmapFacts, raising=False)
        assert main(typed.split()) == 0
        yield folder / "runs" / "maps" / "checkpoints" / "best.ckpt"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, with an index of its own that knows the data."""
    monkeypatch.setattr(HeatmapTask, "facts", HeatmapFacts, raising=False)
    monkeypatch.chdir(tmp_path)
    with own_zoo(tmp_path, monkeypatch, SCENES):
        yield


def images() -> Tensor:
    return torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))


def test_trained_published_listed_shown_and_loaded(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "publish", str(run), "--id", ID, "--to", "out", "--split", "val"]) == 0
    entry = zoo.get(ID)
    assert (entry.task, entry.head, entry.name, entry.dataset) == ("heatmaps", "fcn", "FCN", "scenes")
    assert [entry.id for entry in cz.list_weights(task="heatmaps")] == [ID]
    assert ID not in [entry.id for entry in cz.list_weights(task="semantic")]
    assert index.file_of("heatmaps", "fcn").is_file()

    trained = cz.load(run)
    assert type(trained) is Heatmapper
    assert trained.info.metrics.keys() == entry.metrics.keys() == {"rmse"}
    assert entry.metrics["rmse"] == round(trained.info.metrics["rmse"], 2)
    for weights in (ID, f"out/{ID}/{ID}.safetensors"):
        model = cz.load(weights)
        assert model.info.maps == ("rows", "columns")
        assert (model.info.task, model.info.parts.keys()) == ("heatmaps", {"backbone", "head"})
        assert torch.equal(model(images()), trained(images()))

    capsys.readouterr()
    assert main(["zoo", "list", "--task", "heatmaps"]) == 0
    assert capsys.readouterr().out == f"{ID}\t{entry.figure:.2f}\t-\tscenes\tpatchify\t4k\t-\t-\tyes\n"
    assert main(["zoo", "list", "--task", "heatmaps", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["metrics"] == entry.metrics
    assert main(["zoo", "show", ID]) == 0
    shown = capsys.readouterr().out
    for line in (
        "task             heatmaps",
        "keypoints        rows, columns",
        f"rmse             {entry.figure:.2f} on val",
    ):
        assert line in shown
    card = Path("out", ID, "README.md").read_text()
    assert "pipeline_tag: keypoint-detection" in card
    assert "Maps: rows, columns." in card


def test_its_weights_start_a_training_and_are_no_semantic_ones(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = (
        "fit --task heatmaps --data Scenes --data.batch_size 2 --data.num_workers 0 --trainer.max_epochs 1 --run again"
    )
    typed = [*again.split(), "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--model.weights", str(run)]
    assert main(typed) == 0
    assert "Loaded" in capsys.readouterr().out
    Image.new("RGB", (8, 8)).save("photo.jpg")
    assert main(["segment", "photo.jpg", "--weights", str(run)]) == 2
    assert capsys.readouterr().err == f"{run} is of the task heatmaps, and weights of semantic are wanted here\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": 5}, "its maps are 5, not a list of names"),
        ({"maps": []}, "its maps are"),
        ({"maps": ["a\x1b"]}, "its maps are"),
        ({"maps": None}, "its maps are None"),
        ({"model": {"backbone": {"class_path": "subprocess.Popen"}}}, "no class of this program"),
        ({"task": "heatmap"}, "its task is 'heatmap', which is none of this program"),
        ({"task": "semantic"}, "it has no classes, palette, protocol"),
        ({"metrics": {"figures": {"rmse": []}}}, "its metrics cannot have figures"),
    ],
)
def test_an_attacked_header_is_one_line(run: Path, change: dict[str, Any], message: str) -> None:
    content = read_checkpoint(run)[0].as_dict() | change
    tensors = {name: each.clone() for name, each in cz.load(run).state_dict().items()}
    save_file(tensors, "a.safetensors", {HEADER: json.dumps(content)})
    with pytest.raises(InputError) as caught:
        cz.load("a.safetensors")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert load_file("a.safetensors").keys() == tensors.keys()


def test_a_task_without_facts_says_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(HeatmapTask, "facts")
    with pytest.raises(InputError, match="The task heatmaps does not say what its weights hold"):
        cz.load(run)


def test_no_task_of_the_zoo_has_a_field_that_an_entry_has() -> None:
    assert "semantic" in TASKS
    for task in TASKS:
        assert not (details_of(task).keys() or {}).keys() & FIELDS.keys(), task
        assert details_of(task).metrics, task
