"""Which weights no others beat, and the lists that are narrowed by size."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from screen import shown as on_screen

from zoo import ZooEntry, best, list_entries
from zoo.__main__ import main


def entry(name: str, miou: float, parameters: int | None, gflop: float | None) -> ZooEntry:
    like = list_entries(head="ccnet", dataset="ade20k")[0]
    id = f"ccnet_r50-d8_ade20k-512x512_{name}"
    return replace(like, id=id, metrics={"mIoU": miou}, parameters=parameters, gflop=gflop)


def test_the_front() -> None:
    entries = [
        entry("large", 50, 100, 900),
        entry("slow", 45, 60, 1000),  # "cheap" has more of all
        entry("cheap", 46, 50, 800),
        entry("tiny", 30, 10, 900),
        entry("thrifty", 29, 40, 5),  # fewer GFLOP than any
        entry("twin", 46, 50, 800),
        entry("unknown", 99, None, None),
    ]
    assert [each.id.rpartition("_")[2] for each in best.front(entries)] == ["tiny", "thrifty", "cheap", "large"]


def test_best_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "best.png"
    assert main(["best", "--dataset", "ade20k", "--max-params", "30M", "--plot", str(picture)]) == 0
    *rows, last = capsys.readouterr().out.splitlines()
    assert last == f"Wrote {picture}"
    assert picture.read_bytes()[1:4] == b"PNG"
    figures = [float(row.split("\t")[1]) for row in rows]
    sizes = [float(row.split("\t")[2].removesuffix("M")) for row in rows]
    assert sizes == sorted(sizes)
    assert sizes[-1] <= 30
    assert max(figures) == max(each.metrics["mIoU"] for each in list_entries(dataset="ade20k", max_parameters=30e6))


def test_lists_by_size() -> None:
    small = list_entries(dataset="ade20k", max_parameters=10e6, max_gflop=20)
    assert small
    assert all(each.parameters <= 10e6 and each.gflop <= 20 for each in small if each.parameters and each.gflop)
    assert len(small) < len(list_entries(dataset="ade20k", max_parameters=10e6))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["list", "--max-params", "many"], "argument --max-params: 'many' is no number such as 30M"),
        (["list", "--max-params", "-3M"], "argument --max-params: expected one argument"),
        (["best"], "the following arguments are required: --dataset"),
        (["list", "--licence", "free"], 'Unknown --licence "free". Known: commercial'),
        (["best", "--dataset", "ade20k", "--plot", "nowhere/x.png"], "Cannot write nowhere/x.png: the folder nowhere"),
        (["best", "--dataset", "ade20k", "--plot", "x.txt"], "Cannot write x.txt: "),
    ],
)
def test_bad_input(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    assert capsys.readouterr().err.startswith(message)


def test_nothing_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["best", "--dataset", "ade20k", "--max-params", "1K"]) == 1
    assert "None whose parameters" in capsys.readouterr().err


def test_the_longest_rows_fit_a_terminal() -> None:
    """Of 80 columns; every id is whole."""
    root = Path(__file__).parents[2]
    status, lines = on_screen([sys.executable, "-m", "zoo", "list", "--task", "instance"], 80, cwd=root)
    ids = [each.id for each in list_entries(task="instance")]
    assert status == 0
    assert [line.split()[0] for line in lines[1 : 1 + len(ids)]] == ids
