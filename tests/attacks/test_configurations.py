"""Configurations from strangers: what they name is neither imported nor fetched, unless ``--trust`` was typed."""

import json
from pathlib import Path

import pytest
import yaml
from attacks.tally import Tally
from attacks.traps import Trap
from commands import PROBE, run, typed

DATA = "--data ContextProbe"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")  # restored after the test


def backbone(changes: object) -> dict:
    return {"class_path": "TimmBackbone", "init_args": {"name": "resnet10t", "changes": changes}}


POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": "touch pwned", "shell": True}}
LAMBDA = {"class_path": "LambdaCallback", "init_args": {"setup": "os.system"}}
SWA = {"class_path": "StochasticWeightAveraging", "init_args": {"swa_lrs": 0.1, "avg_fn": "os.system"}}
NAMED = {
    "under Any": {"model": {"backbone": backbone({"x": POPEN})}},
    "as JSON": {"model": {"backbone": backbone(json.dumps({"x": POPEN}))}},
    "escaped": {"model": {"backbone": backbone(json.dumps({"x": POPEN}).replace("_path", "\\u005fpath"))}},
    "a function for a head": {"model": {"head": "os.system"}},
    "a class for a head": {"model": {"head": POPEN}},
    "a callback that calls": {"trainer": {"callbacks": [LAMBDA]}},
    "a function for a callback": {"trainer": {"callbacks": [SWA]}},
    "a plugin": {"trainer": {"plugins": [POPEN]}},
    "a logger": {"trainer": {"logger": {"class_path": "lightning.pytorch.loggers.MLFlowLogger"}}},
    "data": {"data": POPEN},
    "a module": {"model": {"head": "stranger.Head"}},
    "a pickle": {"ckpt_path": "evil.ckpt", "weights_only": False},
}


@pytest.mark.parametrize("name", NAMED)
def test_a_configuration_imports_nothing_from_outside(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], tally: Tally
) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump(NAMED[name]))
    assert run(f"fit {DATA} -c mine.yaml") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--trust if you have read it" in error or "type it, --ckpt_path" in error
    left = [path.name for path in tmp_path.iterdir()]
    tally("configurations", 1, left != ["mine.yaml"])
    assert left == ["mine.yaml"]


def test_an_alias_is_what_it_stands_for(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(
        "seed_everything: &spec {class_path: subprocess.Popen, init_args: {args: touch pwned, shell: true}}\n"
        "model: {backbone: {class_path: TimmBackbone, init_args: {name: resnet10t, changes: {x: *spec}}}}\n"
    )
    assert run(f"fit {DATA} -c mine.yaml") == 2
    assert capsys.readouterr().err == (
        "mine.yaml would import subprocess.Popen, which is not part of this program: add --trust if you have read it\n"
    )
    assert not Path("pwned").exists()


def test_a_file_that_is_included_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("model: other.yaml")
    Path("other.yaml").write_text(yaml.safe_dump({"head": "stranger.Head"}))
    Path("stranger.py").write_text("open('pwned', 'w')")
    assert run(f"fit {DATA} -c mine.yaml") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not Path("pwned").exists()


HEAD = "open('imported', 'w')\nfrom lightning_app.heads.fcn import FCN\nclass Head(FCN): ..."


def test_what_was_read_may_be_trusted_and_what_is_typed_is_the_users_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("read_before", "typed_here"):
        Path(f"{name}.py").write_text(HEAD.replace("imported", name))
    Path("mine.yaml").write_text("model: {head: {class_path: read_before.Head}}")
    assert run(f"fit {DATA} -c mine.yaml --print_config") == 2
    assert not Path("read_before").exists()
    assert run(f"fit {DATA} -c mine.yaml --trust --print_config") == 0
    assert Path("read_before").exists()
    assert run(f"fit {DATA} --model.head typed_here.Head --print_config") == 0
    assert Path("typed_here").exists()


def test_callbacks_that_are_typed_may_be_any() -> None:
    assert run(f"fit {DATA} --trainer.callbacks+=LambdaCallback --print_config") == 0
    early = "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping --trainer.callbacks.monitor val/loss"
    assert run(f"fit {DATA} {early} --print_config") == 0


ADDRESSES = ("--data {}", f"{DATA} --model.head {{}}", f"{DATA} --model.backbone {{}}", "--trainer {}", "-c {}", "-c{}")


@pytest.mark.parametrize("words", ADDRESSES)
def test_no_address_is_asked(words: str, trap: Trap, capsys: pytest.CaptureFixture[str], tally: Tally) -> None:
    assert run(f"fit {words.format(trap.url)}") == 2
    assert capsys.readouterr().err.count("\n") == 1
    Path("mine.yaml").write_text(yaml.safe_dump({"trainer": {"default_root_dir": trap.url}}))
    assert run(f"fit {DATA} -c mine.yaml") == 2
    assert f"mine.yaml names an address, {trap.url}: add --trust" in capsys.readouterr().err
    tally("addresses", 2, trap.requests)
    assert trap.requests == 0


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
TOO_MUCH = {
    "bomb": BOMB,
    "merge": BOMB.replace("x,", "{<<: {a: b}},"),
    "cycle": "a: &a [*a]",
    "deep": "a: " + 999 * "[",
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_more_than_a_configuration_holds_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(TOO_MUCH[name])
    assert run("fit -c mine.yaml") == 2
    assert capsys.readouterr().err == (
        "mine.yaml is no configuration: it holds more than 10000 values, or 40 in one another\n"
    )


def test_a_name_of_any_length_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"fit -c {'x' * 300}") == run(f"fit -c {'x/' * 3000}") == 2
    assert capsys.readouterr().err.count("neither a file nor a shipped one") == 2


@pytest.mark.parametrize(
    "name", ["../../esc", "/tmp/esc", "a/../b", "", ".", "..", "a\\b", "NUL", "com1.txt", "a/", "-"]
)
def test_a_run_stays_below_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], tally: Tally) -> None:
    for command in (f"fit {PROBE} --run={name}", f"test --ckpt_path last --run={name}"):
        assert run(command) == 2
        assert f'--run cannot be "{name}"' in capsys.readouterr().err
    left = list(tmp_path.iterdir())
    tally("names of runs", 2, len(left))
    assert left == []


@pytest.mark.parametrize("name", ["../../esc", ""])
def test_a_run_that_a_configuration_names_stays_there_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({"run": name}))
    assert run(f"fit {PROBE} -c mine.yaml") == 2
    assert f'--run cannot be "{name}"' in capsys.readouterr().err


def test_the_walk_is_made_in_a_process_of_its_own_too(tmp_path: Path) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump(NAMED["under Any"]))
    done = typed(f"fit {DATA} -c mine.yaml", tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
