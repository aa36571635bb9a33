"""Weights of detectors: published ones are what their configurations say; own ones are loaded, published, tested."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import logged, run
from instances import scene, write_coco
from own_zoo import own_zoo
from PIL import Image
from whole_models import redraw

import contextzoo as cz
import zoo
from lightning_app.tasks.instance.network import InstanceSegmentor
from lightning_app.tasks.instance.weights import InstanceFacts, parts_of
from lightning_app.weights.openmmlab.backbones import backbone_arguments
from lightning_app.weights.openmmlab.convert import other_statistics
from lightning_app.weights.openmmlab.detection import detector_arguments, load_detector, new_detector
from zoo import ZooEntry, datasets
from zoo.datasets import Dataset

GOLDENS = Path(__file__).parents[2] / "goldens" / "detection"
ROWS: dict[str, dict[str, Any]] = json.loads((GOLDENS / "rows.json").read_text())
ENTRIES = [entry for entry in zoo.list_entries(task="instance") if entry.format == "openmmlab"]
ONE_OF_EACH = (
    "mask-rcnn_gcnet-r4_r50-fpn_coco_1x",
    "mask-rcnn_groie_r50-fpn_coco_1x",
    "cascade-mask-rcnn_x101-32x4d-dcn-fpn-syncbn_coco_1x",
)
ID = "mask-rcnn_gcnet_resnet10t_shapes-48x64_2"
SHAPES = Dataset("shapes", "Shapes", "COCOInstances", "drawn: no terms", "yes", None, classes=("disc", "square"))
TINY = {
    "task": "instance",
    "model": {
        "backbone": {
            "class_path": "TimmBackbone",
            "init_args": {"name": "resnet10t", "context": {"layer3": {"block": "gcnet", "where": "last"}}},
        },
        "channels": 16,
        "hidden": 16,
        "anchor_scale": 2.0,
        "pyramid": "carafe",
        "schedule": "constant",
        "optimizer": "adamw",
        "lr": 0.01,
    },
    "data": {
        "class_path": "COCOInstances",
        "init_args": {"root": "shapes", "image_size": [48, 64], "batch_size": 4, "num_workers": 0},
    },
    "trainer": {"accelerator": "cpu", "max_epochs": 1, "log_every_n_steps": 1},
}


def row_of(entry: ZooEntry) -> dict[str, Any]:
    """The model of an entry, as mmdetection spells it."""
    file = entry.url.rpartition("/")[2].replace("-", "_")
    (row,) = [
        row for name, row in ROWS.items() if name == entry.config or file.startswith(name.replace("-", "_") + "_")
    ]
    return row


def facts_of(entry: ZooEntry) -> InstanceFacts:
    return InstanceFacts(datasets.datasets()["coco"].classes, not entry.id.startswith("faster"), (800, 1333))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_an_entry_says_what_its_configuration_says(entry: ZooEntry) -> None:
    row, parts = row_of(entry), parts_of(entry)
    expected, theirs = detector_arguments(row), backbone_arguments(row["backbone"])
    statistics = {name: [255 * value for value in expected.pop(name)] for name in ("mean", "std")}
    theirs["changes"] |= other_statistics(theirs["name"], statistics)
    usual = {"out_indices": [1, 2, 3, 4], "changes": {}}
    ours = usual | parts.pop("backbone")["init_args"]
    assert ours.pop("changes").keys() == theirs["changes"].keys()
    assert ours == {name: value for name, value in theirs.items() if name != "changes"}
    whole = {
        "num_classes": len(facts_of(entry).classes),
        "masks": facts_of(entry).masks,
        "channels": 256,
        "hidden": 1024,
        "score_threshold": 0.05,
        "max_detections": 100,
        **parts,
    }
    assert {name: whole[name] for name in expected} == expected
    assert expected.keys() >= whole.keys() - {"mask_upsample"}


@pytest.mark.parametrize(
    "entry",
    [pytest.param(e, marks=() if e.id in ONE_OF_EACH else pytest.mark.slow, id=e.id) for e in ENTRIES],
)
def test_the_network_of_an_entry_is_that_of_its_configuration(entry: ZooEntry) -> None:
    with torch.device("meta"):
        ours, theirs = facts_of(entry).network(parts_of(entry), entry.id), new_detector(row_of(entry))
    assert str(ours) == str(theirs)
    shapes, others = ({n: t.shape for n, t in model.state_dict().items()} for model in (ours, theirs))
    assert shapes == others
    assert ours.size == theirs.size == (800, 1333)
    for name, values in theirs.constants.items():
        assert ours.constants[name] == pytest.approx(values, abs=1e-12)


@pytest.mark.slow
def test_a_published_file_is_the_detector_with_its_classes(tmp_path: Path) -> None:
    with np.load(GOLDENS / "whole__mask_rcnn_r50.npz") as file:
        weights = redraw(json.loads(str(file["recipe"])), int(file["seed"]))
    entry = next(each for each in ENTRIES if each.id == "mask-rcnn_r50-fpn_coco_1x")
    path = tmp_path / f"{entry.id}.pth"
    torch.save({"state_dict": weights}, path)
    model = cz.load(path)
    assert type(model) is InstanceSegmentor
    assert not model.training
    assert model.info.classes[:2] == ("person", "bicycle")
    assert model.info.known("mask_AP") == f"{entry.metrics['mask_AP']:.2f} published by OpenMMLab, val2017"
    picture = torch.from_numpy(scene(3)[0]).permute(2, 0, 1) / 255
    with torch.no_grad():
        (found,), (expected,) = model([picture]), load_detector(weights, row_of(entry))([picture])
    assert len(found) > 0
    for name in ("boxes", "labels", "scores", "masks"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, the configuration and one run."""
    folder = tmp_path_factory.mktemp("instance")
    write_coco(folder / "shapes")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("fit -c tiny.yaml --run a") == 0
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That folder, with an index of its own that knows the data."""
    monkeypatch.chdir(trained)
    with own_zoo(tmp_path, monkeypatch, SHAPES):
        yield trained


def test_own_weights_published_listed_loaded_and_tested(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"zoo publish a --id {ID} --to out") == 0
    entry = zoo.get(ID)
    assert (entry.task, entry.head, entry.dataset, entry.split) == ("instance", "gcnet", "shapes", "val")
    assert entry.as_dict()["detector"] == "mask-rcnn"
    assert entry.as_dict()["image_size"] == (48, 64)
    own = {name: logged(here / "runs/a", f"val/{name}")[0] for name in ("box_AP", "mask_AP")}
    assert entry.metrics == {name: pytest.approx(100 * value, abs=0.01) for name, value in own.items()}
    assert "contextzoo infer photo.jpg" in Path("out", ID, "README.md").read_text()
    assert run(f"zoo show {ID}") == 0
    assert "box AP           " in capsys.readouterr().out

    trained, picture = cz.load("a"), scene(3)[0]
    model = cz.load(f"out/{ID}/{ID}.safetensors")
    assert (model.info.classes, model.info.task, model.size) == (("disc", "square"), "instance", (48, 64))
    model.tell_from(0.0)
    trained.tell_from(0.0)
    assert len(model.predict(picture)) > 0
    assert np.array_equal(model.predict(picture).boxes, trained.predict(picture).boxes)

    for verb in ("validate", "test"):
        assert run(f"{verb} --weights {ID} --data.root shapes --run {verb}") == 0
        told = capsys.readouterr().out
        measured = json.loads((here / f"runs/{verb}/{verb}.json").read_text())
        assert measured["mask_AP"] == pytest.approx(own["mask_AP"], abs=1e-6)
        assert f"mask_AP {100 * own['mask_AP']:.2f} measured here; {100 * own['mask_AP']:.2f} validation after" in told
    assert run(f"predict --weights {ID} --data.predict_folder shapes/val --run predicted") == 0
    assert len(list(Path("runs/predicted/predictions").glob("*_overlay.jpg"))) == 4
    Image.fromarray(picture).save("photo.png")
    assert run(f"infer photo.png --weights {ID} --score 0.01 --out seen") == 0
    assert Path("seen/photo.json").is_file()


def test_weights_start_a_training_with_all_that_they_were_built_with(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = "--data COCOInstances --data.root shapes --data.image_size [48,64] --data.num_workers 0"
    typed = f"fit --model.weights a {data} --trainer.max_steps 1 --trainer.limit_val_batches 0"
    assert run(f"{typed} --trainer.accelerator cpu --run again") == 0
    out = capsys.readouterr().out
    tensors = len([name for name in cz.load("a").state_dict() if "num_batches" not in name])
    assert f"Loaded {tensors}/{tensors} tensors." in out


def test_data_of_other_classes_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("test --weights a --data.root shapes --data.classes [disc]") == 2
    assert "a/best knows 2 classes, the data has 1: give the data it was trained on" in capsys.readouterr().err
    assert run("test --weights a --data.root shapes --data.masks false --run boxes") == 0
    assert "Mask AP" not in capsys.readouterr().out
