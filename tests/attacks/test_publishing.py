"""Many publishers at once, and publishers that are killed: the index stays whole and loses nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attacks.tally import Tally
from entries import OWN
from weights import fit_camvid

from lightning_app.app.cli import main
from lightning_app.weights.load import load
from zoo import index, writing
from zoo.toml import text_of

ROOT = Path(__file__).parents[2]
PUBLISHERS, EACH = 12, 3
ID = "fcn_test_resnet_camvid-24x32_1ep"
WRITES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")
ADD = """
import json, sys
from pathlib import Path
from zoo import writing
for number in sys.argv[3:]:
    values = json.loads(sys.argv[2]) | {"url": f"checkpoints/{number}.safetensors"}
    id = f"ccnet_resnet18_camvid-360x480_{number}k"
    writing.add(id, "semantic", "ccnet", "CCNet", "p", values, Path(sys.argv[1]))
"""


@pytest.fixture
def own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    shutil.copytree(index.INDEX, folder)
    monkeypatch.setattr(index, "INDEX", folder)
    monkeypatch.setenv("CONTEXTZOO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return folder


def entries_of(folder: Path) -> set[str]:
    """Ids of the whole index as it lies there now."""
    return {entry.id for path in folder.rglob("*.toml") for entry in index.parse(path, text_of(path))}


def start(folder: Path, numbers: list[int]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", ADD, str(folder), json.dumps(OWN), *map(str, numbers)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def killed_at(nth: int, work: Callable[[], object]) -> bool:
    """Do the work in a process of its own that is killed in front of its nth change of the disk; whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def watch(event: str, args: tuple[object, ...]) -> None:
            nonlocal count
            opened = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
            if opened or event in WRITES:
                if count == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1

        sys.addaudithook(watch)
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, how = os.waitpid(child, 0)
    assert how == 0 or os.WIFSIGNALED(how), "the work failed by itself"
    return os.WIFSIGNALED(how)


def test_many_publishers_lose_nothing(own_index: Path, tally: Tally) -> None:
    before = entries_of(own_index)
    numbers = [list(range(first, first + EACH)) for first in range(0, PUBLISHERS * EACH, EACH)]
    for process in [start(own_index, each) for each in numbers]:
        assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == 0
    kept = entries_of(own_index) - before
    tally("publishers at once", PUBLISHERS * EACH, PUBLISHERS * EACH - len(kept))
    assert kept == {f"ccnet_resnet18_camvid-360x480_{number}k" for number in range(PUBLISHERS * EACH)}


def test_two_publishers_of_one_id(own_index: Path) -> None:
    both = [start(own_index, [7]) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    said = "".join(errors).splitlines()[-1]
    assert said.endswith("ccnet.toml: ccnet_resnet18_camvid-360x480_7k is taken; give another id")


def test_a_killed_entry_is_there_or_not(own_index: Path, tally: Tally) -> None:
    before = entries_of(own_index)
    id = "ccnet_resnet18_camvid-360x480_1k"
    for nth in range(100):
        killed = killed_at(nth, lambda: writing.add(id, "semantic", "ccnet", "CCNet", "p", OWN, own_index))
        there = entries_of(own_index) - before
        tally("kills in the index", killed, there not in (set(), {id}))
        assert there in (set(), {id})
        if not killed:
            break
    assert nth >= 3
    assert there == {id}
    other = "ccnet_resnet18_camvid-360x480_2k"  # no lock of the dead is in the way
    writing.add(other, "semantic", "ccnet", "CCNet", "p", OWN | {"url": "checkpoints/other.safetensors"}, own_index)
    assert entries_of(own_index) == before | {id, other}


@pytest.mark.parametrize("plant", ["link", "second name", "pipe"])
def test_a_planted_name_beside_the_index(own_index: Path, tmp_path: Path, plant: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (".lock", "semantic/.ccnet.toml.part"):
        path = own_index / name
        path.unlink(missing_ok=True)
        if plant == "pipe":
            os.mkfifo(path)
        elif plant == "link":
            path.symlink_to(victim)
        else:
            path.hardlink_to(victim)
        id = f"ccnet_resnet18_camvid-360x480_{len(name)}k"
        values = OWN | {"url": f"checkpoints/{len(name)}.safetensors"}
        writing.add(id, "semantic", "ccnet", "CCNet", "p", values, own_index)
        assert id in entries_of(own_index)
        assert victim.read_text() == "precious"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield fit_camvid(folder)


def publish(run: Path) -> int:
    index.read.cache_clear()
    return main(["zoo", "publish", str(run), "--id", ID, "--to", "out"])


def killed_publication(run: Path, own_index: Path, nth: int) -> bool:
    """Kill a publication, look at what is there, and publish again; whether it was killed."""
    before = entries_of(own_index)
    killed = killed_at(nth, lambda: publish(run))
    index.read.cache_clear()
    there = entries_of(own_index) - before
    assert there in (set(), {ID})
    if not there:
        assert publish(run) == 0
    assert load(ID).info is not None
    assert [path.name for path in Path("out").iterdir()] == [ID]
    for path in own_index.rglob("*.toml"):
        shutil.copy(ROOT / "zoo" / "index" / path.relative_to(own_index), path)
    shutil.rmtree("out")
    return killed


@pytest.mark.parametrize("nth", [0, 4, 20, 30])
def test_a_killed_publication_can_be_done_again(run: Path, own_index: Path, nth: int, tally: Tally) -> None:
    assert killed_publication(run, own_index, nth)
    tally("kills in publishing", 1, 0)


@pytest.mark.slow
def test_a_publication_killed_anywhere(run: Path, own_index: Path, tally: Tally) -> None:
    nth = 0
    while killed_publication(run, own_index, nth):
        nth += 1
        tally("kills in publishing", 1, 0)
    assert nth > 10
