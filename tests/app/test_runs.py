"""The weights of a run by every word that people use for it, and what a run's files say of where things lie."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands import run as typed
from data.make_fakes import camvid
from PIL import Image
from weights import fit_camvid, write_tiny

from lightning_app.runs.folders import weights_of
from lightning_app.util.errors import InputError
from lightning_app.weights.checkpoint import read_config
from lightning_app.weights.load import load


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with CamVid in ``camvid`` and a run called tiny in ``runs``."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        camvid(Path("camvid"))
        fit_camvid(Path())
    return folder


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")  # restored after the test
    return trained


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("tiny", "tiny/best"),
        ("runs/tiny", "tiny/best"),
        ("./runs/tiny/", "tiny/best"),
        ("runs/tiny/checkpoints", "tiny/best"),
        ("best", "tiny/best"),
        ("last", "tiny/last"),
        ("runs/tiny/checkpoints/last.ckpt", "tiny/last"),
    ],
)
def test_words_for_the_weights_of_a_run(here: Path, word: str, name: str) -> None:
    info = load(word).info
    assert info is not None
    assert info.name == name
    assert weights_of(word.removesuffix("last.ckpt").rstrip("/")) is not None


def test_every_verb_takes_them(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 48), (90, 120, 60)).save(tmp_path / "photo.png")
    assert typed(f"segment {tmp_path}/photo.png --weights tiny --out {tmp_path}") == 2  # over the photo itself
    assert typed(f"segment {tmp_path}/photo.png --weights runs/tiny --out {tmp_path}/out") == 0
    assert typed("test --weights best --data.root camvid --data.test_split val --run t1 --trainer.accelerator cpu") == 0
    assert typed("test --ckpt_path tiny --data.test_split val --run t2 --trainer.accelerator cpu") == 0
    assert typed("test --ckpt_path runs/tiny --data.test_split val --run t3 --trainer.accelerator cpu") == 0
    capsys.readouterr()
    assert typed(f"zoo publish tiny --id fcn_test_resnet_camvid-24x32_1ep --to {tmp_path} --miou 200") == 2
    assert "--figure and --source go together" in capsys.readouterr().err


def test_a_run_is_told_from_a_zoo_id_and_a_published_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    write_tiny(tmp_path / "mine" / "mine.safetensors")
    model = load("mine")
    assert model.info is not None
    assert model.info.name == "tiny"
    (tmp_path / "runs" / "early" / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match=r"runs/early holds no weights: neither checkpoints/best\.ckpt nor last\.ckpt"):
        load("early")
    with pytest.raises(InputError, match=r'No weights "earli" in the zoo or in runs/\. Did you mean the run "early"\?'):
        load("earli")
    with pytest.raises(InputError, match=r"best: no runs/\*/checkpoints/best\.ckpt here"):
        load("best")


def test_a_run_knows_where_its_data_lie_from_any_folder(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = here / "runs" / "tiny" / "checkpoints" / "best.ckpt"
    assert read_config(path)["data"]["init_args"]["root"] == str(here / "camvid")
    assert f"root: {here / 'camvid'}\n" in (here / "runs" / "tiny" / "config.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    assert typed(f"validate --ckpt_path {path} --run v --trainer.accelerator cpu") == 0


def test_an_older_run_is_looked_for_where_it_was_started(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = torch.load(here / "runs" / "tiny" / "checkpoints" / "best.ckpt", weights_only=True)
    content["config"]["data"]["init_args"]["root"] = "camvid"
    (here / "runs" / "old" / "checkpoints").mkdir(parents=True)
    path = here / "runs" / "old" / "checkpoints" / "last.ckpt"
    torch.save(content, path)
    monkeypatch.chdir(tmp_path)
    assert typed(f"validate --ckpt_path {path} --run v --trainer.accelerator cpu") == 0
