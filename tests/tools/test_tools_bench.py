"""``contextzoo bench`` as typed, at sizes that take no time."""

import csv
import itertools
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from lightning_app.app.cli import main
from lightning_app.registry import BLOCKS
from lightning_app.tools import bench, bench_subject, bench_timing
from lightning_app.util.errors import InputError

TINY = ["--sizes", "4x6", "--channels", "16", "--repeats", "2", "--threads", "1"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run over two blocks and two sizes with every kind of output."""
    folder = tmp_path_factory.mktemp("bench")
    outputs = ["--json", f"{folder}/b.json", "--csv", f"{folder}/b.csv", "--plot", f"{folder}/b.png"]
    names = ["nonlocal_net:mode=dot_product", "ccnet:recurrence=1"]
    assert bench.main(["blocks", *names, "--sizes", "4x6", "8x8", "--channels", "16", "--repeats", "2", *outputs]) == 0
    return folder


def test_json_holds_settings_and_rows(measured: Path) -> None:
    report = json.loads((measured / "b.json").read_text())
    assert report["settings"]["torch"] == torch.__version__
    rows = report["rows"]
    assert [(row["name"], row["height"], row["width"]) for row in rows] == [
        ("nonlocal_net:mode=dot_product", 4, 6),
        ("nonlocal_net:mode=dot_product", 8, 8),
        ("ccnet:recurrence=1", 4, 6),
        ("ccnet:recurrence=1", 8, 8),
    ]
    assert rows[2]["parameters"] == 2 * (16 * 2 + 2) + 16 * 16 + 16 + 1  # query, key, value, gamma
    assert all(row["forward_ms"] > 0 and row["both_ms"] > 0 for row in rows)
    limits = report["settings"]["roofline"]
    for row in rows:
        least = max(row["gflop"] / limits["gflops"], row["moved_mb"] * 2**20 / 1e9 / limits["gbs"])
        assert row["share"] == pytest.approx(1e3 * least / row["forward_ms"])
    assert rows[2]["moved_mb"] * 2**20 == 4 * (2 * 24 * 16 + rows[2]["parameters"])  # input, output and weights
    assert all(0 < row["forward_mb"] < row["both_mb"] for row in rows)


def test_flop_count_two_per_multiply_add(measured: Path) -> None:
    row = json.loads((measured / "b.json").read_text())["rows"][0]
    n, channels, inner = 24, 16, 8
    multiply_adds = n * channels * inner * 4 + 2 * n * inner * inner  # g, theta, phi, out; phi g, then theta (phi g)
    assert row["gflop"] * 1e9 == pytest.approx(2 * multiply_adds)


def test_csv_equals_json(measured: Path) -> None:
    rows = json.loads((measured / "b.json").read_text())["rows"]
    with (measured / "b.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == [row["name"] for row in rows]
    assert [float(row["both_ms"]) for row in table] == [row["both_ms"] for row in rows]


def test_plot_is_a_picture(measured: Path) -> None:
    from matplotlib.image import imread

    height, width, _ = imread(measured / "b.png").shape
    assert height > 500
    assert width > 500


def test_heads_print_a_plain_table_when_piped(capfd: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["heads", "fcn", "ccnet", *TINY, "--in-channels", "4", "4", "8", "8", "--num-classes", "3"]) == 0
    out = capfd.readouterr().out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.split()}
    assert lines["fcn"][1] == lines["ccnet"][1] == "4x6"
    assert int(lines["fcn"][2].replace(",", "")) == 9 * (8 * 16 + 16 * 16 + 24 * 16) + 3 * 2 * 16 + 16 * 3 + 3
    assert "\x1b" not in out


def test_reference_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A plain form that is our own class, twenty times over."""
    monkeypatch.setattr(bench_subject, "REFERENCES", tmp_path)
    (tmp_path / "ccnet.py").write_text(
        "from lightning_app.blocks import ccnet\n"
        "class CrissCrossAttention(ccnet.CrissCrossAttention):\n"
        "    def forward(self, x):\n"
        "        return sum(super(CrissCrossAttention, self).forward(x) for _ in range(20))\n"
    )
    report = tmp_path / "b.json"
    assert bench.main(["blocks", "ccnet", *TINY, "--reference", "--json", str(report)]) == 0
    ours, plain = json.loads(report.read_text())["rows"]
    assert (ours["plain"], plain["plain"]) == (False, True)
    assert ours["parameters"] == plain["parameters"]
    assert ours["difference"] == pytest.approx(19 / 20)
    assert ours["forward_speedup"] > 2
    assert ours["both_speedup"] > 2
    assert plain["gflop"] == pytest.approx(20 * ours["gflop"])
    assert f"{ours['forward_speedup']:.2f}x" in capfd.readouterr().out


def test_what_cannot_be_measured_is_said_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_subject, "REFERENCES", tmp_path)
    (tmp_path / "ccnet.py").write_text(
        "from lightning_app.blocks import ccnet\n"
        "class CrissCrossAttention(ccnet.CrissCrossAttention):\n"
        "    def forward(self, x):\n"
        "        if x.shape[-1] == 5:\n"
        "            raise RuntimeError('no room')\n"
        "        return super().forward(x)\n"
    )
    report = tmp_path / "b.json"
    args = ["blocks", "ccnet", "--reference", "--channels", "8", "--repeats", "1", "--json", str(report)]
    assert bench.main([*args, "--sizes", "4x5", "4x6"]) == 1
    assert "ccnet at 4x5 could not be measured: no room" in capfd.readouterr().err
    ours, _ = json.loads(report.read_text())["rows"]
    assert ours["width"] == 6
    assert ours["difference"] < 1e-6


class Doubling(nn.Module):
    """Holds 1 MB for the result and, for a while, 2 MB more."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x]).mul_(2)[: len(x)].clone()


def test_peak_memory_is_exact() -> None:
    x = torch.randn(2**18, requires_grad=True)
    case = bench_subject.Case(Doubling(), (x,), [x], bf16=False)
    assert case.peak_mb(case.forward) == 3
    assert case.peak_mb(case.forward) == 3


def test_interleaved_takes_turns() -> None:
    order: list[str] = []
    ticks = itertools.count(0, 1e-5)
    times = bench_timing.interleaved([lambda: order.append("a"), lambda: order.append("b")], 3, lambda: next(ticks))
    assert [len(column) for column in times] == [3, 3]
    assert "".join(order[4:]) == ("a" * 100 + "b" * 100) * 3


def test_exponent_of_a_power_law() -> None:
    assert bench_timing.exponent([10, 100, 1000], [3 * n**1.5 for n in (10, 100, 1000)]) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["blocks", "cccnet"], 'Unknown block "cccnet". Did you mean "ccnet"?'),
        (["blocks", "ccnet:recurence=1"], "ccnet:recurence=1: .*unexpected keyword argument 'recurence'"),
        (["heads", "ccnet:mode=3"], "ccnet:mode=3: .*unexpected keyword argument 'mode'"),
        (["blocks", "nonlocal_net:mode=dot"], "Unknown non-local mode"),
        (["blocks", "ccnet", "--plot", "x.png"], "--plot needs two sizes"),
        (["blocks", "ccnet", "--json", "nowhere/x.json"], "the folder nowhere is not there"),
        (["blocks", "ccnet", "--repeats", "0"], "--repeats is 0"),
        (["heads", "ccnet", "--reference"], "--reference compares blocks"),
    ],
)
def test_bad_input(args: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        bench.main(args)


def test_reference_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_subject, "REFERENCES", tmp_path)
    with pytest.raises(InputError, match="nonlocal_net has no plain form"):
        bench.main(["blocks", "nonlocal_net", "--reference"])


def test_all_leaves_out_what_has_no_plain_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_subject, "REFERENCES", tmp_path)
    (tmp_path / "se.py").write_text("from lightning_app.blocks.se import SE\n")
    assert bench.main(["blocks", "--reference", *TINY, "--csv", str(tmp_path / "b.csv")]) == 0
    assert "nonlocal_net" in capfd.readouterr().err
    names = [line.partition(",")[0] for line in (tmp_path / "b.csv").read_text().splitlines()]
    assert names == [
        "name",
        *(slug for slug in BLOCKS if hasattr(BLOCKS[slug].cls, "fast") or slug == "se" for _ in "12"),
    ]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("bench blocks --sizes 64", "argument --sizes: '64' is not a size such as 64x128 (contextzoo bench --help)"),
        ("bench head ccnet", "argument kind: invalid choice: 'head'"),
        ("bench", "the following arguments are required: kind"),
        ("probe --seeds many", "argument --seeds: invalid int value: 'many' (contextzoo probe --help)"),
        ("probe ccnett", 'Unknown head "ccnett". Did you mean "ccnet"?'),
    ],
)
def test_a_bad_word_is_one_line(typed: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_names_in_any_form_and_rows_as_they_come(capfd: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["heads", "FCN,CCNet", "ccnet:recurrence=1", *TINY, "--in-channels", "4", "4", "8", "8"]) == 0
    out, err = capfd.readouterr()
    said = [line.partition(":")[0] for line in err.splitlines() if line.startswith(("[", "Measuring"))]
    assert said[:3] == ["Measuring 3 heads at 4x6, 2 times each", "[1/3] fcn at 4x6", "[2/3] ccnet at 4x6"]
    assert said[3].startswith("[3/3] ccnet")
    assert [line.split()[0] for line in out.splitlines() if " 4x6 " in line] == ["fcn", "ccnet", "ccnet:recurrence=1"]


def test_whole_models_plain_and_fast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights that ship with the repository; in fp32 every label stays."""
    report = tmp_path / "models.json"
    name = "ccnet_patchify_context-probe-64x64_960"
    args = [
        "models",
        name,
        "--reference",
        "--sizes",
        "64x96",
        "--threads",
        "1",
        "--repeats",
        "1",
        "--json",
        str(report),
    ]
    assert bench.main(args) == 0
    (row,) = json.loads(report.read_text())["rows"]
    assert (row["name"], row["height"], row["width"], row["weights"]) == (name, 64, 96, "published")
    assert row["fp32_same"] == 1
    assert row["bf16_same"] is None or row["bf16_same"] > 0.9
    assert row["plain_ms"] > 0
    assert "products at" in capsys.readouterr().out


def test_models_of_another_task_are_refused() -> None:
    with pytest.raises(InputError, match="is of the task pose"):
        bench.main(["models", next(entry.id for entry in zoo.list_entries(task="pose"))])
