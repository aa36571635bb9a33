"""What was written before the rooms still means what it did: names of modules, a checkpoint, configurations."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest
import torch
from commands import run

from lightning_app._moved import MOVED, PARTED
from lightning_app.tasks.semantic.protocol import EvaluationProtocol
from lightning_app.weights.load import load

ROOT = Path(__file__).parents[1]
CHECKPOINT = Path(__file__).parent / "goldens" / "before_the_rooms.ckpt"  # of a run of two epochs on ContextProbe
MEANS = (0.09964576288299533, -0.08345120591286871, -0.06263211084988562)  # of its three maps, by the code of then


@pytest.mark.parametrize("name", MOVED)
def test_old_names_of_modules_still_import(name: str) -> None:
    now = importlib.import_module(MOVED[name])
    sys.modules.pop(name, None)
    with pytest.warns(DeprecationWarning, match=MOVED[name]):
        importlib.import_module(name)
    for public in [each for each in vars(now) if not each.startswith("_")]:
        assert getattr(importlib.import_module(name), public) is getattr(now, public)


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in PARTED for name in PARTED[module]])
def test_names_that_left_their_module_still_import(module: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=PARTED[module][name]):
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(PARTED[module][name]), name)
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        importlib.import_module(module).nothing_of_that_name  # noqa: B018


def test_a_checkpoint_of_then_gives_its_numbers() -> None:
    network = load(CHECKPOINT).double()
    images = torch.linspace(0, 1, 3 * 40 * 40, dtype=torch.float64).view(1, 3, 40, 40)
    with torch.no_grad():
        means = network(images)[0].mean((1, 2))
    torch.testing.assert_close(means, torch.tensor(MEANS, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_a_run_of_then_goes_on_and_is_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "old" / "checkpoints"
    folder.mkdir(parents=True)
    shutil.copy(CHECKPOINT, folder / "last.ckpt")
    assert run("test --run old --ckpt_path last") == 0
    assert "7 images, each counted once" in capsys.readouterr().out
    assert run("fit --run old --ckpt_path last --trainer.max_epochs 3") == 0
    assert "at step 6" in capsys.readouterr().out


def test_configurations_beside_published_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = ROOT / "checkpoints" / "ccnet_patchify_context-probe-64x64_960" / "config.yaml"
    assert run(f"fit -c {file} --print_config") == 0
    assert "CCNet" in capsys.readouterr().out


def test_a_class_by_its_name_of_before() -> None:
    sys.modules.pop("lightning_app.inference", None)
    with pytest.warns(DeprecationWarning, match="tasks.semantic.inference"):
        old = importlib.import_module("lightning_app.inference")
    assert old.Protocol is EvaluationProtocol
