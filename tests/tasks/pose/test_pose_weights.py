"""Weights of pose estimators: published ones, and own ones that are loaded, published, tested."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import logged, run
from own_zoo import own_zoo
from pose_fakes import NAMES, animal, fake_keypoints
from test_pose_cli import TINY
from torch import Tensor

import contextzoo as cz
import zoo
from lightning_app.data.pose.facts import PERSON, person_facts
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.weights.openmmlab.pose import load_estimator, upstream_config
from zoo import datasets
from zoo.datasets import Dataset

TENSORS: dict[str, Any] = json.loads(
    gzip.decompress((Path(__file__).parents[2] / "goldens" / "pose_names.json.gz").read_bytes())
)
PUBLISHED = "td-hm_mobilenetv2_8xb64-210e_coco-256x192"
ID = "fcn_resnet10t_animals-64x48_6"
ANIMALS = Dataset("animals", "Animals", "COCOKeypoints", "drawn: no terms", "yes", None, keypoints=tuple(NAMES))


def drawn(config: str) -> dict[str, Tensor]:
    """The tensors of a published row with numbers of their own."""
    dice = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in TENSORS["networks"][TENSORS["rows"][config]]:
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.zeros(shape, dtype=torch.int64)
        elif name.endswith("running_var"):
            tensors[name] = torch.ones(shape)
        else:
            tensors[name] = 0.05 * torch.randn(shape, generator=dice)
    return tensors


def test_a_published_file_is_the_estimator_of_its_configuration(tmp_path: Path) -> None:
    entry, weights = zoo.get(PUBLISHED), drawn(PUBLISHED)
    torch.save({"state_dict": weights}, tmp_path / f"{PUBLISHED}.pth")
    model = cz.load(tmp_path / f"{PUBLISHED}.pth")
    assert type(model) is PoseEstimator
    assert list(model.info.keypoints.names) == PERSON
    assert model.info.keypoints.flip_indices[:3] == [0, 2, 1]
    assert len(model.info.keypoints.skeleton) == 19
    assert (model.info.codec.kind, model.info.codec.input_size, model.info.flip_test) == ("msra", (256, 192), True)
    assert model.info.known("AP") == f"{entry.metrics['AP']:.2f} published by OpenMMLab, val2017"
    expected = load_estimator(weights, upstream_config(entry))
    crops = torch.rand(1, 3, 256, 192, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(model(crops), expected(crops))
    poses = model.predict(animal(np.random.default_rng(0))[0], boxes=[[4, 4, 40, 44], [8, 0, 60, 40]])
    assert poses.keypoints.shape == (2, 17, 2)
    assert poses.draw().width >= 64


def test_points_beyond_cocos_have_facts_too() -> None:
    entry = zoo.get("td-hm_hrnet-w32_8xb64-210e_coco-aic-256x192-combine")
    known = person_facts(datasets.datasets()[entry.dataset].keypoints)
    assert (len(known.names), len(known.sigmas), known.names[-2:]) == (19, 19, ("head_top", "neck"))
    assert known.flip_indices[-2:] == [17, 18]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and one run, whose AP is a figure that only its own rules give."""
    folder = tmp_path_factory.mktemp("pose")
    fake_keypoints(folder / "animals")
    rules = {"flip_test": False, "keypoint_threshold": 0.1}
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "model": {**TINY["model"], **rules}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        more = "--trainer.max_epochs 8 --trainer.check_val_every_n_epoch 8 --data.sigmas [0.5,0.5,0.5,0.6]"
        assert run(f"fit -c tiny.yaml --run a {more}") == 0
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That folder, with an index of its own that knows the data."""
    monkeypatch.chdir(trained)
    with own_zoo(tmp_path, monkeypatch, ANIMALS):
        yield trained


def test_own_weights_published_listed_loaded_and_tested(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {name: max(logged(here / "runs/a", f"val/{name}")) for name in ("AP", "AR")}
    assert own["AR"] > 0
    assert run(f"zoo publish a --id {ID} --to out") == 0
    entry = zoo.get(ID)
    assert (entry.task, entry.head, entry.dataset, entry.split) == ("pose", "fcn", "animals", "val")
    assert {name: entry.as_dict()[name] for name in ("input_size", "boxes", "flip_test")} == {
        "input_size": (64, 48),
        "boxes": "ground truth",
        "flip_test": False,
    }
    assert entry.metrics["AP"] == pytest.approx(100 * own["AP"], abs=0.01)

    trained, picture = cz.load("a"), animal(np.random.default_rng(5))[0]
    model = cz.load(f"out/{ID}/{ID}.safetensors")
    assert (model.info.keypoints.names, model.info.codec.kind) == (tuple(NAMES), "udp")
    assert model.info.keypoints.sigmas == (0.5, 0.5, 0.5, 0.6)
    assert (model.info.flip_test, model.info.keypoint_threshold) == (False, 0.1)
    assert np.array_equal(model.predict(picture).keypoints, trained.predict(picture).keypoints)

    capsys.readouterr()
    for verb in ("validate", "test"):
        assert run(f"{verb} --weights {ID} --data.root animals --run {verb}") == 0
        measured = json.loads((here / f"runs/{verb}/{verb}.json").read_text())
        assert measured["AR"] == pytest.approx(own["AR"], abs=1e-6)
        assert f"AP {100 * own['AP']:.2f} measured here; {100 * own['AP']:.2f}" in capsys.readouterr().out
    assert run(f"predict --weights {ID} --data.root animals --data.predict_folder animals/images --run drawn") == 0
    assert len(list(Path("runs/drawn/predictions").glob("*_overlay.jpg"))) == 10
    assert run(f"predict --weights {ID} --data.predict_folder animals/images --run alone") == 0  # by the weights' names
    files = (Path(f"runs/{name}/predictions/predictions.json") for name in ("drawn", "alone"))
    drawn, alone = (json.loads(file.read_text()) for file in files)
    assert [each["keypoints"] for each in alone] == [each["keypoints"] for each in drawn]


def test_weights_start_a_training_with_their_codec(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = "--data COCOKeypoints --data.root animals --data.batch_size 2 --data.num_workers 0"
    typed = f"fit --model.weights a {data} --trainer.max_steps 1"
    assert run(f"{typed} --trainer.limit_val_batches 0 --trainer.accelerator cpu --run again") == 0
    out = capsys.readouterr().out
    tensors = len([name for name in cz.load("a").state_dict() if "num_batches" not in name])
    assert f"Loaded {tensors}/{tensors} tensors." in out
    config = yaml.safe_load(Path("runs/again/config.yaml").read_text())
    assert (config["model"]["codec"]["kind"], config["model"]["codec"]["input_size"]) == ("udp", [64, 48])


def test_data_of_other_keypoints_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_keypoints(here / "other")
    for path in (here / "other/annotations").glob("*.json"):
        content = json.loads(path.read_text())
        content["categories"][0] |= {"keypoints": NAMES[:3], "skeleton": []}
        content["info"] = {}
        for each in content["annotations"]:
            each["keypoints"] = each["keypoints"][:9]
        path.write_text(json.dumps(content))
    assert run("test --weights a --data.root other --data.sigmas null") == 2
    assert "a/best knows 4 keypoints, the data has 3: give the data it was trained on" in capsys.readouterr().err
