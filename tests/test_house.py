"""The house: imports only go down its floors, and it stands without the repository around it."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from floors import FLOOR, ROOT, modules, room_of

FILES = modules()


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its head or later; ``from package import name`` is package.name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(path: Path) -> Iterator[str]:
    """The rooms of ours that a file imports from."""
    for name in imported(path):
        package, _, rest = name.partition(".")
        if package == "zoo":
            yield "zoo"
        elif package == "lightning_app" and rest not in ("", "__version__"):
            room = room_of(rest)
            assert room is not None, f"{path} imports {name}, which is on no floor"
            yield room


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_down(path: Path) -> None:
    if FILES[path] == "__init__":
        assert set(rooms(path)) <= {"_moved"}
        return
    room = room_of(FILES[path])
    assert room is not None, f"{path} is on no floor"
    for other in rooms(path):
        assert other == room or FLOOR[other] < FLOOR[room], f"{room} imports {other}"


def test_who_may_import_what() -> None:
    for path, module in FILES.items():
        packages, room = {name.partition(".")[0] for name in imported(path)}, module.partition(".")[0]
        assert "wandb" not in packages or room == "callbacks" or module == "weights.wandb_artifacts", path
        assert room != "zoo" or not packages & {"torch", "lightning", "lightning_app"}, path
        assert room != "blocks" or not packages & {"timm", "torchvision", "lightning"}, path
        assert "zoo" not in packages or room in ("zoo", "data", "weights", "tools") or module.endswith(".weights"), path


@pytest.mark.slow
def test_a_wheel_works_in_an_empty_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(tmp_path / "installed"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}

    def contextzoo(command: str) -> str:
        arguments = [sys.executable, "-m", "lightning_app", *command.split()]
        done = subprocess.run(arguments, cwd=empty, env=environment, check=True, capture_output=True, text=True)
        return done.stdout

    where = [sys.executable, "-c", "import lightning_app; print(lightning_app.__file__)"]
    found = subprocess.run(where, cwd=empty, env=environment, check=True, capture_output=True, text=True).stdout
    assert Path(found).is_relative_to(tmp_path / "installed")
    assert "name: resnet10t" in contextzoo("fit -c recipes/camvid_cpu --print_config")
    assert "recipes/" in contextzoo("fit --help")
    here = {line.split("\t")[0]: line.split("\t")[-1] for line in contextzoo("zoo list").splitlines()}
    assert here["ccnet_r50-d8_cityscapes-512x1024_40k"] == "-"
    assert here["fcn_resnet10t_camvid-180x240_990"] == "repository"

    # weights that it has no file of: a line with the remedy, and the remedy
    fit = [sys.executable, "-m", "lightning_app", "fit"]
    from_shipped = [*fit, "-c", "recipes/camvid_heads", "--data.root", "nowhere"]
    done = subprocess.run(from_shipped, cwd=empty, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "set CONTEXTZOO_SHIPPED to its folder checkpoints" in done.stderr
    environment["CONTEXTZOO_SHIPPED"] = str(ROOT / "checkpoints")
    assert "fcn_resnet10t_camvid-180x240_990\t59.46" in contextzoo("zoo list --local")
    done = subprocess.run(from_shipped, cwd=empty, env=environment, capture_output=True, text=True)
    assert "nowhere" in done.stderr
