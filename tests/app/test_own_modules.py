"""Heads, backbones and datasets that live in the user's own file."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from commands import PROBE, run, typed

import contextzoo as cz
from lightning_app.app.own_modules import VARIABLE
from lightning_app.heads.fcn import FCN
from lightning_app.registry import HEADS

HEAD = '''
import contextzoo as cz
from lightning_app.heads.fcn import FCN

@cz.register_head("{name}")
class {name}(FCN):
    """An FCN by another name."""
'''
BACKBONE = """
from lightning_app.backbones.patchify import Patchify

class MyPatches(Patchify): ...
"""
DATA = """
from lightning_app.data import ContextProbe

class MyScenes(ContextProbe): ...
"""
CALLBACK = """
from lightning.pytorch import Callback

class Says(Callback):
    def on_train_end(self, trainer, task): print("trained")
"""
FIT = f"fit {PROBE} --trainer.max_epochs 1"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    known = dict(HEADS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTZOO_RUN", "")
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    HEADS._entries = known


def write(name: str, text: str) -> None:
    Path(f"{name}.py").write_text(text)


def test_imports_may_be_repeated_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    write("heads_a", HEAD.format(name="own_a"))
    write("patches_a", BACKBONE)
    assert run("--import heads_a heads --import=patches_a") == 0
    (row,) = (line.split() for line in capsys.readouterr().out.splitlines() if "own_a" in line)
    assert row[:5] == ["own_a", "own_a", "-", "-", "23.61"]
    assert {"heads_a", "patches_a"} <= {*sys.modules}


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("no_such_module", 'There is no module "no_such_module": no_such_module.py is not in '),
        (
            "misses",
            "misses cannot be imported: ModuleNotFoundError: No module named 'no_part' (misses.py, line 2)",
        ),
        ("divides", "divides cannot be imported: ZeroDivisionError: division by zero (divides.py, line 1)"),
        ("opens", "opens cannot be imported: SyntaxError: '(' was never closed (opens.py, line 1)"),
        ("taken", 'taken cannot be imported: InputError: There is a head "ccnet" already (CCNet): choose another name'),
        ("calendar", "calendar.py is hidden by another module calendar, "),
        ("divides.py", 'takes the name of a module, such as my_heads, not "divides.py". Did you mean "divides"?'),
        ("--sizes", 'takes the name of a module, such as my_heads, not "--sizes".'),
        ("", "--import which module?"),
    ],
)
def test_what_cannot_be_imported_is_one_line(word: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("misses", "\nimport no_part")
    write("divides", "1 / 0")
    write("opens", "x = (")
    write("taken", HEAD.format(name="ccnet"))
    write("calendar", HEAD.format(name="own_calendar"))
    assert run(f"zoo list --import {word}") == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_a_file_here_hides_nothing_installed(tmp_path: Path) -> None:
    write("yaml", "1 / 0")
    write("heads_b", HEAD.format(name="own_b"))
    code = f"import sys; sys.path[:] = [path for path in sys.path if path not in ('', {str(tmp_path)!r})]; "
    code += "from lightning_app.app.cli import main; main(['zoo', 'list', '--import', 'heads_b']); import yaml"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_typed_path_needs_no_import(capsys: pytest.CaptureFixture[str]) -> None:
    write("heads_c", HEAD.format(name="own_c"))
    write("patches_c", BACKBONE)
    write("scenes_c", DATA)
    parts = "--model.head heads_c.own_c --model.backbone patches_c.MyPatches --data scenes_c.MyScenes"
    assert run(f"fit {parts} --print_config") == 0
    config = yaml.safe_load(capsys.readouterr().out)
    named = [config["model"]["head"], config["model"]["backbone"], config["data"]]
    assert [each["class_path"] for each in named] == ["heads_c.own_c", "patches_c.MyPatches", "scenes_c.MyScenes"]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("heads_d.own_dd", 'There is no "own_dd" in the module heads_d. Did you mean "own_d"?'),
        ("heads_dd.own_d", 'There is no module "heads_dd"'),
        ("patches_d.MyPatches", 'model.head cannot be "patches_d.MyPatches": expected ContextHead or null'),
    ],
)
def test_a_wrong_path_is_one_line(word: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("heads_d", HEAD.format(name="own_d"))
    write("patches_d", BACKBONE)
    assert run(f"{FIT} --model.head {word}") == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_a_checkpoint_of_ones_own_head(capsys: pytest.CaptureFixture[str]) -> None:
    write("heads_e", HEAD.format(name="own_e"))
    assert run(f"{FIT} --import heads_e --model.head own_e --run mine") == 0
    ckpt = "runs/mine/checkpoints/last.ckpt"
    done = typed(f"test --ckpt_path {ckpt}", Path())
    assert done.returncode == 2
    assert done.stderr == (
        f"{ckpt}: its model.head is heads_e.own_e, which is no class of this program: if it is yours, import its "
        "module first (--import heads_e)\n"
    )
    assert run(f"test --import heads_e --ckpt_path {ckpt}") == 0
    assert type(cz.load(ckpt).head).__name__ == "own_e"
    published = f"zoo publish {ckpt} --import heads_e --id own_patch8_probe_3 --to published --data-licence none"
    assert run(published) == 0
    assert run("predict --import heads_e --weights mine --run predicted") == 0


def test_files_may_name_what_was_imported(capsys: pytest.CaptureFixture[str]) -> None:
    write("heads_f", HEAD.format(name="own_f"))
    write("says_f", CALLBACK)
    part = {
        "trainer": {"callbacks": [{"class_path": "says_f.Says"}]},
        "model": {"head": {"class_path": "heads_f.own_f"}},
    }
    Path("mine.yaml").write_text(yaml.safe_dump(part))
    assert run(f"{FIT} -c mine.yaml") == 2
    assert "would import heads_f.own_f, says_f.Says" in capsys.readouterr().err
    assert run(f"{FIT} --import heads_f --import says_f -c mine.yaml --print_config") == 0
    assert "says_f.Says" in capsys.readouterr().out


def test_data_check_with_ones_own_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    write("scenes_g", DATA.replace("My", "Checked"))
    assert run("data check --data scenes_g.CheckedScenes") == 0
    assert run("data check --import scenes_g --data CheckedScenes") == 0


def test_bench_knows_it(capsys: pytest.CaptureFixture[str]) -> None:
    write("heads_h", HEAD.format(name="own_h"))
    size = "--sizes 4x4 --repeats 1 --channels 8 --in-channels 8 8 8 8"
    assert run(f"bench heads own_h fcn --import heads_h {size}") == 0
    assert "own_h" in capsys.readouterr().out


def test_data_check_imports_nothing_that_a_file_names(capsys: pytest.CaptureFixture[str]) -> None:
    sys.path.append(str(Path.cwd()))
    write("stranger_g", "raise SystemExit(7)")
    Path("theirs.yaml").write_text("data: {class_path: stranger_g.Scenes}")
    for verb in ("check", "stats"):
        assert run(f"data {verb} -c theirs.yaml") == 2
        assert capsys.readouterr().err == (
            "theirs.yaml would import stranger_g.Scenes, which is not part of this program: "
            "add --trust if you have read it\n"
        )
    write("scenes_gg", DATA.replace("My", "Own"))
    Path("ours.yaml").write_text("data: {class_path: scenes_gg.OwnScenes}")
    assert run("data check --import scenes_gg -c ours.yaml") == 0


@pytest.mark.slow
def test_probe_and_sweep_know_it(tmp_path: Path) -> None:
    write("heads_i", HEAD.format(name="own_i"))
    done = typed("probe own_i --import heads_i --modes anywhere --seeds 1 --steps 2", tmp_path)
    assert done.returncode == 0, done.stderr
    Path("recipe.yaml").write_text("{}")
    words = PROBE.replace("--model.head FCN", "")
    done = typed(f"sweep recipe.yaml --heads own_i fcn --seeds 1 --import heads_i {words}", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "own_i" in Path("runs/sweep/recipe/README.md").read_text()


def test_in_python() -> None:
    def define() -> type:
        @cz.register_head("own_j", paper="arXiv:0000.00000", year=2020)
        class Mine(FCN):
            """An FCN by another name."""

        return Mine

    define()
    model = cz.create_model("own_j", "resnet10t", num_classes=3, channels=8)
    assert model.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32, 32)
    assert "own_j" in cz.list_heads()
    again = define()  # as a notebook's cell may
    assert HEADS["own_j"].cls is again


@pytest.mark.parametrize("slug", ["all", "Mine", "my head", "a:b", "", "1st"])
def test_a_name_that_no_command_could_take(slug: str) -> None:
    with pytest.raises(ValueError, match="lower case, digits and _"):
        cz.register_head(slug)


def test_what_is_no_head() -> None:
    with pytest.raises(ValueError, match="Linear is no head: derive it from BlockHead or ContextHead"):
        cz.register_head("own_k")(torch.nn.Linear)
    assert "own_k" not in HEADS
