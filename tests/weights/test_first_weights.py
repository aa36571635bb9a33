"""Weights that a network begins with are never asked for where it gets its own."""

from pathlib import Path

import pytest
import torch
from commands import run
from weights import fit_camvid

from lightning_app.weights.load import load


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")  # restored after the test


def test_a_network_with_weights_of_its_own_asks_for_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one that was trained from timm's weights, on a machine where these are not to be had."""
    path = fit_camvid(tmp_path).with_name("last.ckpt")
    content = torch.load(path, weights_only=True)
    content["config"]["model"]["backbone"]["init_args"]["pretrained"] = True
    torch.save(content, path)

    def ask(*args: object, **options: object) -> None:
        raise AssertionError("asked for other weights")

    monkeypatch.setattr("lightning_app.backbones.imagenet.packaged", ask)
    monkeypatch.setattr("lightning_app.backbones.imagenet.fetching", ask)
    data = "--data.root camvid --data.num_workers 0"
    for command in (
        f"test --ckpt_path {path} {data} --data.test_split val",
        f"validate --ckpt_path {path} {data}",
        f"predict --ckpt_path {path} {data} --data.predict_folder camvid/val",
        f"test --weights {path} {data} --data.test_split val",
        f"fit --ckpt_path {path} {data} --trainer.max_epochs 2",
    ):
        assert run(command) == 0, capsys.readouterr().err
    assert load(path)
    resumed = torch.load(path, weights_only=True)["config"]
    assert resumed["model"]["backbone"]["init_args"]["pretrained"] is True  # what it began with
