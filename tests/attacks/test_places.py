"""Files from strangers that would write or delete outside the run: what a checkpoint remembers, folders, links."""

import copy
import os
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from attacks.tally import Tally
from commands import PROBE, run
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_app.data import ContextProbe
from lightning_app.reading.checkpoints import CheckpointFiles, check_states
from lightning_app.tasks.semantic.task import SegmentationTask
from lightning_app.util.errors import InputError
from lightning_app.weights.load import load

MINE = {"last.ckpt": "mine", "best.ckpt": "mine", "hparams.yaml": "mine", "sub/file": "mine"}


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        patch.setenv("CONTEXTZOO_RUN", "")
        assert run(f"fit {PROBE} --run a --trainer.max_epochs 1") == 0
        loaded: dict[str, Any] = torch.load("runs/a/checkpoints/last.ckpt", weights_only=True)
    return loaded


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's, outside of every run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")  # restored after the test
    for name, text in MINE.items():
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "mine"


def harm(mine: Path) -> bool:
    """Whether anything in the folder is not as it was."""
    return {path.relative_to(mine).as_posix(): path.read_text() for path in mine.rglob("*") if path.is_file()} != MINE


def remembering(content: dict[str, Any], folder: Path, name: str, key: str) -> dict[str, Any]:
    """A checkpoint whose callbacks take ``name`` for a checkpoint of ``folder`` that a better one replaces."""
    worst = torch.tensor(-1.0)
    state = {"dirpath": str(folder), "best_model_score": worst, "kth_value": worst}
    state |= {"best_k_models": {name: worst}, "kth_best_model_path": name} if key == "best_k_models" else {key: name}
    changed = copy.deepcopy(content)
    for callback, values in changed["callbacks"].items():
        if "ModelCheckpoint" in callback:
            values.update(state)
    return changed


KEYS = ("best_model_path", "last_model_path", "best_k_models")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", ["../../../mine", "../../../mine/last.ckpt"])
def test_what_a_checkpoint_remembers_is_not_deleted(
    key: str, name: str, content: dict[str, Any], mine: Path, tally: Tally
) -> None:
    folder = Path("runs/b/checkpoints").absolute()
    torch.save(remembering(content, folder, f"{folder}/{name}", key), "b.ckpt")
    status = run("fit --ckpt_path b.ckpt --run b --trainer.max_epochs 3")
    tally("places outside the run", 1, harm(mine))
    assert not harm(mine)
    assert status == 2


def test_a_trainer_of_python_deletes_nothing_either(content: dict[str, Any], mine: Path, tally: Tally) -> None:
    for name in (mine / "sub", f"{mine}/../mine/last.ckpt"):
        torch.save(remembering(content, mine, str(name), "best_model_path"), "b.ckpt")
        saver = ModelCheckpoint(mine, "new", monitor="val/mIoU", mode="max")
        trainer = Trainer(accelerator="cpu", max_epochs=2, callbacks=saver, logger=False, enable_progress_bar=False)
        data = ContextProbe(cells=5, colours=2, textures=2, queries=2, train_images=4, val_images=1, num_workers=0)
        task = SegmentationTask.load_from_checkpoint("b.ckpt")
        with pytest.raises(InputError, match=r"b\.ckpt: its callbacks remember"):
            trainer.fit(task, data, ckpt_path="b.ckpt", weights_only=True)
        tally("places outside the run", 1, harm(mine))
        assert not harm(mine)


def test_only_checkpoints_are_removed_and_through_no_link(tmp_path: Path, mine: Path) -> None:
    (tmp_path / "link").symlink_to(mine)
    (tmp_path / "link.ckpt").symlink_to(mine / "last.ckpt")
    files = CheckpointFiles(tmp_path)
    for name in ("mine", "mine/sub/file", "mine/../mine/last.ckpt", "link/last.ckpt", "link.ckpt"):
        files.remove_checkpoint(f"{tmp_path}/{name}")
        assert not harm(mine)
    files.remove_checkpoint(f"{mine}/last.ckpt")
    assert not (mine / "last.ckpt").exists()


def test_states_that_hold_one_another_end() -> None:
    shared: list[Any] = ["plain"]
    for _ in range(200):
        shared = [shared, shared]
    endless: dict[str, Any] = {}
    endless["again"] = [endless]
    check_states([shared, endless], "b.ckpt")


def written(path: str, content: bytes, *, compressed: bool = False) -> None:
    """A checkpoint with a pickle of its own."""
    torch.save({}, "empty.ckpt")
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile("empty.ckpt") as archive, zipfile.ZipFile(path, "w", kind) as new:
        for name in archive.namelist():
            new.writestr(name, content if name.endswith("data.pkl") else archive.read(name))


def test_keys_that_take_for_ever_are_not_hashed() -> None:
    pairs = b"".join(b"h" + bytes([number]) + b"\x86q" + bytes([number + 1]) for number in range(1, 61))
    written("b.ckpt", b"\x80\x02}q\x00K\x01\x85q\x01" + pairs + b"K\x01s.")  # {((..., ...), (..., ...)): 1}
    signal.alarm(20)  # hashing waits for no handler: it ends the process
    for use in (load, SegmentationTask.load_from_checkpoint):
        with pytest.raises(InputError, match=r"b\.ckpt is not a checkpoint of this program"):
            use("b.ckpt")
    assert run("fit --ckpt_path b.ckpt") == run("test --ckpt_path b.ckpt") == 2
    signal.alarm(0)


def test_a_compressed_checkpoint_is_not_unpacked() -> None:
    written("b.ckpt", b"\x80\x02}." + bytes(2**24), compressed=True)
    with pytest.raises(InputError, match=r"b\.ckpt is not a checkpoint of this program"):
        load("b.ckpt")


def everywhere(folder: str) -> Callable[[dict[str, Any]], None]:
    """All that a run writes goes into ``folder``, says its checkpoint."""

    def change(trainer: dict[str, Any]) -> None:
        trainer["default_root_dir"] = folder
        trainer["logger"]["init_args"] |= {"save_dir": folder, "name": "", "version": ""}
        for callback in trainer["callbacks"]:
            if callback["class_path"].endswith("ModelCheckpoint"):
                callback["init_args"]["dirpath"] = folder

    return change


@pytest.mark.parametrize("folder", ["mine", ".", "runs/other/checkpoints"])
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["as it is", "whole path"])
def test_a_resumed_run_writes_into_its_own_folder(
    folder: str, whole: bool, content: dict[str, Any], mine: Path, tmp_path: Path, tally: Tally
) -> None:
    changed = copy.deepcopy(content)
    everywhere(str(Path(folder).absolute()) if whole else folder)(changed["config"]["trainer"])
    torch.save(changed, "b.ckpt")
    assert run("fit --ckpt_path b.ckpt --run b --trainer.max_epochs 2") == 0
    left = {path.name for path in tmp_path.iterdir()} | {path.name for path in Path("runs").iterdir()}
    bad = harm(mine) or left != {"mine", "b.ckpt", "runs", "b"}
    tally("places outside the run", 1, bad)
    assert not bad
    assert Path("runs/b/checkpoints/last.ckpt").is_file()


OUT = {
    "dirpath": {"callbacks": [{"class_path": "ModelCheckpoint", "init_args": {"dirpath": "mine"}}]},
    "filename": {"callbacks": [{"class_path": "ModelCheckpoint", "init_args": {"filename": "../../../mine/best"}}]},
    "save_dir": {"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "mine", "name": "", "version": ""}}},
    "name": {"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": ".", "name": "../../mine"}}},
    "profiler": {"profiler": {"class_path": "SimpleProfiler", "init_args": {"dirpath": "mine", "filename": "x"}}},
}


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("included", [False, True], ids=["there", "in a file"])
def test_a_configuration_writes_nowhere_else(
    name: str, included: bool, mine: Path, capsys: pytest.CaptureFixture[str], tally: Tally
) -> None:
    Path("other.yaml").write_text(yaml.safe_dump(OUT[name]))
    Path("mine.yaml").write_text(yaml.safe_dump({"trainer": "other.yaml" if included else OUT[name]}))
    assert run(f"fit {PROBE} -c mine.yaml --run a") == 2
    assert "add --trust if you have read it, or type it" in capsys.readouterr().err
    tally("places outside the run", 1, harm(mine))
    assert not harm(mine)


def test_what_is_typed_or_trusted_may_lie_elsewhere(mine: Path) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({"trainer": OUT["dirpath"]}))
    typed = "--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.dirpath typed"
    assert run(f"fit {PROBE} --trainer.max_epochs 1 --run a {typed}") == 0
    assert list(Path("typed").glob("*.ckpt"))
    assert run(f"fit {PROBE} --trainer.max_epochs 1 --run b -c mine.yaml --trust") == 0
    assert len(list(mine.glob("*.ckpt"))) > 2


@pytest.mark.parametrize("plant", [lambda path: path.symlink_to("../../mine/last.ckpt"), os.mkfifo, os.mkdir])
def test_a_lock_that_is_none_is_left_alone(
    plant: Callable[[Path], None], mine: Path, capsys: pytest.CaptureFixture[str], tally: Tally
) -> None:
    Path("runs/a").mkdir(parents=True)
    plant(Path("runs/a/.lock"))
    assert run(f"fit {PROBE} --run a") == 2
    assert capsys.readouterr().err == "runs/a/.lock is no plain file: remove it\n"
    tally("places outside the run", 1, harm(mine))
    assert not harm(mine)


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.copy(tree) if isinstance(tree, dict) else list(tree)
    changed[path[0]] = replaced(tree[path[0]], path[1:], value)
    return changed


STATES = [
    ("loops", "fit_loop", "epoch_loop.batch_progress", "total", "started"),
    ("loops", "fit_loop", "state_dict"),
    ("loops", "fit_loop", "epoch_progress", "current", "completed"),
    ("callbacks", "GeneratorStates", "ranks"),
    ("callbacks", "GeneratorStates", "ranks", 0, "numpy", 1, 2),
    ("optimizer_states", 0, "param_groups"),
    ("optimizer_states", 0, "state", 0),
    ("lr_schedulers", 0, "base_lrs", 0),
    ("lr_schedulers", 0, "lr_lambdas", 0),
]


@pytest.mark.parametrize(
    "path",
    [*STATES[:2], *(pytest.param(path, marks=pytest.mark.slow) for path in STATES[2:])],
    ids=lambda path: ".".join(map(str, path)),
)
def test_a_state_that_is_none_is_one_line(
    path: tuple[Any, ...], content: dict[str, Any], capsys: pytest.CaptureFixture[str], tally: Tally
) -> None:
    torch.save(replaced(content, path, "nothing"), "b.ckpt")
    assert run("fit --ckpt_path b.ckpt --run b --trainer.max_epochs 2") == 2
    error = capsys.readouterr().err
    good = error.startswith("b.ckpt") and error.count("\n") == 1
    tally("states of a training", 1, not good)
    assert good, error
    assert run("test --ckpt_path b.ckpt") == 0
