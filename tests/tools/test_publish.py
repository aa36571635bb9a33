"""Publishing a run's checkpoint: the file, its card, its index entry; and nothing where something is wrong."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from data.make_fakes import camvid
from hub import serving
from PIL import Image
from safetensors import safe_open
from weights import fit_camvid

import zoo
from lightning_app.app.cli import main
from lightning_app.weights.description import HEADER
from lightning_app.weights.load import load
from zoo import index
from zoo.datasets import datasets

ROOT = Path(__file__).parents[2]
ID = "fcn_test_resnet_camvid-24x32_1ep"
RUN = ("README.md", "config.yaml", "metrics_0.csv")  # what tells how the weights came about


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The best checkpoint of a run with averaged weights."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield fit_camvid(folder, "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging")


@pytest.fixture(autouse=True)
def own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the index to write to, and an empty working folder."""
    folder = tmp_path / "index"
    shutil.copytree(index.INDEX, folder)
    monkeypatch.setattr(index, "INDEX", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def publish(run: Path, typed: str = "", id: str = ID, to: str = "out") -> int:
    return main(["zoo", "publish", str(run), "--id", id, "--to", to, *typed.split()])


def header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        description: dict[str, Any] = json.loads(file.metadata()[HEADER])
        return description


def images() -> torch.Tensor:
    return torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_who_can_read_the_file_is_as_the_umask_says(run: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        assert publish(run) == 0
    finally:
        os.umask(before)
    assert (Path("out") / ID / f"{ID}.safetensors").stat().st_mode & 0o777 == mode


def test_file_card_and_entry(run: Path, own_index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish(run) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [f"{ID}: out/{ID}", f"Entry in {own_index}/semantic/fcn.toml: contextzoo zoo show {ID}"]
    folder = Path("out") / ID
    assert {path.name for path in folder.iterdir()} == {f"{ID}.safetensors", *RUN}
    assert [path.name for path in Path("out").iterdir()] == [ID]

    model, trained = load(folder / f"{ID}.safetensors"), load(run)
    assert torch.equal(model(images()), trained(images()))
    described = header(folder / f"{ID}.safetensors")
    assert described["classes"] == list(datasets()["camvid"].classes)
    assert described["licences"]["training data"] == datasets()["camvid"].terms
    assert "root" not in described["data"]["init_args"]
    assert str(run.parents[3]) not in json.dumps(described)  # no path of this machine

    entry = zoo.get(ID)
    assert entry.url == (folder / f"{ID}.safetensors").resolve().as_uri()
    assert (entry.dataset, entry.split, entry.iterations, entry.batch) == ("camvid", "val", 2, 2)
    assert entry.details.crop == (24, 32)
    own = [each for name, each in model.named_parameters() if not name.startswith("auxiliary.")]
    assert entry.parameters == sum(each.numel() for each in own)
    assert entry.gflop is not None
    assert entry.details.decode_head is None  # the file tells, and no second place
    assert main(["zoo", "download", ID]) == 0  # what the file tells is known once it is here
    assert main(["zoo", "show", ID]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.split(None, 2)[2].startswith("FCN(channels=8, ") for line in lines if line.startswith("decode head")
    )
    assert (entry.backbone.name, entry.optimizer) == ("test_resnet", "SGD")
    assert trained.info is not None
    assert entry.metrics == {"mIoU": round(trained.info.metrics["mIoU"], 2)}
    assert entry.metrics_source.startswith("validation after epoch 1 of its own run")
    named = {"metrics": entry.metrics, "source": f"{entry.metrics_source}, val"}
    assert load(ID).info == model.info.__class__(**{**vars(model.info), **named})

    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "| begun from | random weights |" in card
    for text in (
        f"--weights {ID}",
        entry.code_licence,
        entry.weights_licence,
        entry.data_licence,
        f"{entry.figure:.2f}",
    ):
        assert text in card
    assert "pavement" in card


def test_its_configuration_trains_it_again(run: Path, tmp_path: Path) -> None:
    assert publish(run) == 0
    config = Path("out", ID, "config.yaml")
    assert str(run.parents[3]) not in config.read_text()  # no path of this machine
    camvid(tmp_path / "camvid")
    assert main(["fit", "-c", str(config), "--data.root", "camvid", "--run", "again"]) == 0
    again, before = (torch.load(path, weights_only=True) for path in (Path("runs/again/checkpoints/best.ckpt"), run))
    assert all(torch.equal(again["state_dict"][name], tensor) for name, tensor in before["state_dict"].items())


def test_weights_are_measured_again_on_the_split_of_their_figure(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(run) == 0
    camvid(tmp_path / "camvid")
    typed = ["test", "--weights", ID, "--data", "CamVid", "--data.root", "camvid", "--data.num_workers", "0"]
    assert main([*typed, "--run", "val"]) == 0
    entry = zoo.get(ID)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"mIoU {entry.figure:.2f} measured here; {entry.figure:.2f} {entry.metrics_source}, val"
    assert main([*typed, "--run", "train", "--data.test_split", "train"]) == 0
    images = {name: json.loads(Path(f"runs/{name}/test.json").read_text())["images"] for name in ("val", "train")}
    assert images == {"val": 3, "train": 5}


def test_weights_of_drawn_data_bring_what_was_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = """fit -c recipes/context_probe --data.cells 6 --data.queries 2 --data.beyond 2 --data.seed 7
        --data.train_images 64 --data.val_images 24 --trainer.max_epochs 1 --trainer.check_val_every_n_epoch 1
        --trainer.devices 1 --run drawn"""
    assert main(typed.split()) == 0
    id = "fcn_patchify_context-probe-48x48_2"
    assert publish(Path("runs/drawn/checkpoints/best.ckpt"), id=id) == 0
    entry = zoo.get(id)
    assert (entry.dataset, entry.split, entry.details.crop, entry.commercial) == (
        "context-probe",
        "val",
        (48, 48),
        "yes",
    )
    assert entry in zoo.list_entries(backbone="patchify")
    for words in (["--data", "ContextProbe"], []):
        assert main(["test", "--weights", id, *words, "--run", f"again{len(words)}"]) == 0
        line = capsys.readouterr().out.splitlines()[-1]
        assert line == f"mIoU {entry.figure:.2f} measured here; {entry.figure:.2f} {entry.metrics_source}, val"
    assert json.loads(Path("runs/again0/test.json").read_text())["images"] == 24


def test_it_loads_in_a_bare_process(run: Path) -> None:
    assert publish(run) == 0
    file = Path("out") / ID / f"{ID}.safetensors"
    code = f"""
import torch
from lightning_app.weights.load import load
model = load({str(file)!r})
images = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
print(model.info.classes[3], model(images).double().sum().item())
"""
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    name, total = done.stdout.split()
    assert name == "road"
    assert float(total) == pytest.approx(load(run)(images()).double().sum().item(), rel=1e-4)


def test_raw_weights_in_half_precision(run: Path) -> None:
    assert publish(run, "--raw --half --miou 12.3 --miou-source by-hand") == 0
    file = Path("out") / ID / f"{ID}.safetensors"
    content = torch.load(run, weights_only=True)
    raw = content["current_model_state"]["network.head.classifier.weight"]
    with safe_open(file, framework="pt") as opened:
        assert torch.equal(opened.get_tensor("head.classifier.weight"), raw.half())
    assert torch.equal(load(file).head.classifier.weight, raw.half().float())
    assert zoo.get(ID).figure == 12.3
    assert "half precision" in (file.parent / "README.md").read_text()


def test_the_figure_measured_with_the_checkpoint_goes_first(run: Path, tmp_path: Path) -> None:
    camvid(tmp_path / "camvid")
    copy = tmp_path / "runs" / "measured" / "checkpoints" / "best.ckpt"
    shutil.copytree(run.parents[1], copy.parents[1])
    typed = ["test", "--ckpt_path", str(copy), "--run", "measured", "--data.root", "camvid"]
    assert main([*typed, "--data.test_split", "train", "--trainer.limit_test_batches", "1"]) == 0
    assert publish(copy) == 0
    entry = zoo.get(ID)
    measured = json.loads((copy.parents[1] / "test.json").read_text())
    assert (entry.figure, entry.split) == (round(100 * measured["mIoU"], 2), "train")
    assert entry.metrics_source.startswith("contextzoo test --ckpt_path best.ckpt, 20")
    assert {path.name for path in (Path("out") / ID).iterdir()} == {f"{ID}.safetensors", *RUN}  # no log of the test


@pytest.mark.parametrize(
    ("id", "typed", "message"),
    [
        ("ccnet_test_resnet_camvid-24x32_1ep", "", 'must start with "fcn_"'),
        ("fcn_r50-d8_cityscapes-512x1024_40k", "", "is taken"),
        ("../fcn_x_y", "", "lower-case letters"),
        (ID, "--miou 50", "--figure and --source go together"),
        (ID, "--figure AP=50 --source x", "--figure AP: weights of this task have mIoU"),
        (ID, "--figure mIoU=high --source x", "'mIoU=high': give NAME=PERCENT, such as mIoU=58.4"),
        (ID, "--miou 500 --miou-source x", "per cent, 0 to 100"),
        (ID, "--raw", "give the raw ones' --figure"),
        (ID, "--code-licence", "--code-licence"),
    ],
)
def test_what_is_wrong_leaves_nothing(
    run: Path, own_index: Path, id: str, typed: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in own_index.rglob("*.toml")}
    assert publish(run, typed, id) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out").exists() or not list(Path("out").iterdir())
    assert {path.name: path.read_bytes() for path in own_index.rglob("*.toml")} == before


def test_a_folder_that_is_there_is_left_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (Path("out") / ID).mkdir(parents=True)
    assert publish(run) == 2
    assert "is there already" in capsys.readouterr().err
    assert list((Path("out") / ID).iterdir()) == []


def test_values_beyond_half_precision_are_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = torch.load(run, weights_only=True)
    content["state_dict"]["network.head.classifier.bias"][0] = 1e5
    torch.save(content, tmp_path / "large.ckpt")
    assert publish(tmp_path / "large.ckpt", "--half") == 2
    assert "head.classifier.bias has values beyond half precision's 65504" in capsys.readouterr().err
    assert not Path("out", ID).exists()


def test_data_that_the_zoo_does_not_know(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = torch.load(run, weights_only=True)
    content["hyper_parameters"]["class_names"][0] = "heaven"
    torch.save(content, tmp_path / "own.ckpt")
    assert publish(tmp_path / "own.ckpt") == 2
    assert "--data-licence" in capsys.readouterr().err
    assert publish(tmp_path / "own.ckpt", "--data-licence CC0-1.0") == 0
    assert "No entry in the index" in capsys.readouterr().out
    assert "CC0-1.0" in (Path("out") / ID / "README.md").read_text()
    assert load(Path("out") / ID / f"{ID}.safetensors").info.classes[0] == "heaven"  # type: ignore[union-attr]


def test_pushing_to_the_hub_and_fetching_by_its_id(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("CONTEXTZOO_HOME", str(tmp_path / "home"))
    Image.new("RGB", (32, 24), (90, 120, 60)).save("street.png")
    with serving(monkeypatch) as hub:
        assert publish(run, "--picture street.png", to="hf://someone/models") == 0
        assert f"{hub.url}/someone/models" in capsys.readouterr().out
        pushed = hub.repositories["someone/models"]
        assert pushed.keys() == {f"{ID}.safetensors", *RUN, "picture.jpg"}
        entry = zoo.get(ID)
        assert entry.url == f"hf://someone/models/{ID}.safetensors"
        assert entry.size == len(pushed[f"{ID}.safetensors"])
        (card, *_) = hub.cards
        (result,) = card["model-index"][0]["results"]
        assert (card["license"], card["datasets"], card["pipeline_tag"]) == (
            "apache-2.0",
            ["camvid"],
            "image-segmentation",
        )
        assert result["metrics"] == [{"type": "mean_iou", "value": entry.figure, "name": "mIoU, per cent"}]
        assert (result["dataset"]["type"], result["dataset"]["split"]) == ("camvid", "val")
        assert "--weights hf://someone/models\n" in pushed["README.md"].decode()
        by_id, by_address = load(ID), load("hf://someone/models")
    assert torch.equal(by_id(images()), load(run)(images()))
    assert torch.equal(by_id(images()), by_address(images()))
    assert by_address.info.provenance["begun from"] == "random weights"


def test_a_push_that_fails_enters_nothing(
    run: Path, own_index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    before = (own_index / "semantic" / "fcn.toml").read_bytes()
    assert publish(run, to="hf://someone/models") == 2
    error = capsys.readouterr().err
    assert "Cannot push to hf://someone/models" in error
    assert error.count("\n") == 1
    assert (own_index / "semantic" / "fcn.toml").read_bytes() == before


def test_the_zoo_alone_sends_to_the_right_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zoo", "publish", "best.ckpt", "--id", ID], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2
    assert "contextzoo zoo publish CKPT --id ID" in done.stderr
