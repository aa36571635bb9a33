"""What ``contextzoo bench`` shows: a table, and lines against the number of positions."""

import argparse
import sys

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from lightning_app.tools.bench_subject import Row, cpu_time
from lightning_app.tools.bench_timing import device_name, exponent
from lightning_app.tools.roofline import Roofline
from lightning_app.util.files import replacing


def show(rows: list[Row], options: argparse.Namespace, roofline: Roofline) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=200)
    width = f"{options.channels or 512} channels" if options.kind == "blocks" else f"levels {options.in_channels}"
    machine = device_name(options.device) + (f", threads: {options.threads}" if options.device == "cpu" else "")
    notes = [
        f"{machine}, torch {torch.__version__}. {roofline}.",
        f"{'CPU time' if cpu_time(options) else 'Times'}: median of {options.repeats} ± half the interquartile range.",
        "GFLOP: convolutions and matrix products of the forward pass, 2 per multiply-add.",
        "MB: peak of tensors beyond weights and inputs.",
        "of limit: what products, or moving inputs, weights and outputs once, take at these speeds, over fwd ms.",
    ]
    if options.reference:
        notes.append("Against the plain form: times as fast, share of its memory, largest difference.")
    table = Table(
        title=f"{options.kind}: batch {options.batch}, {width}, {options.precision}",
        caption=" ".join(notes),
        box=box.SIMPLE if console.is_terminal else None,
    )
    columns = ["map", "params", "GFLOP", "fwd ms", "of limit", "fwd+bwd ms", "fwd MB", "fwd+bwd MB"]
    if options.reference:
        columns += ["fwd", "fwd+bwd", "fwd MB", "fwd+bwd MB", "differ"]
    table.add_column("name", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for row, other in zip(rows, [*rows[1:], None], strict=True):
        cells = [
            _label(row),
            f"{row.height}x{row.width}",
            f"{row.parameters:,}",
            _digits(row.gflop),
            f"{_digits(row.forward_ms)} ±{row.forward_spread_ms / row.forward_ms:.0%}",
            f"{row.share:.2f}",
            f"{_digits(row.both_ms)} ±{row.both_spread_ms / row.both_ms:.0%}",
            f"{row.forward_mb:.1f}",
            f"{row.both_mb:.1f}",
        ]
        if options.reference and not row.plain:
            assert other is not None
            cells += [
                f"{row.forward_speedup:.2f}x",
                f"{row.both_speedup:.2f}x",
                f"{row.forward_mb / other.forward_mb:.0%}",
                f"{row.both_mb / other.both_mb:.0%}",
                f"{row.difference:.0e}",
            ]
        table.add_row(*cells)
    console.print(table)


def in_short(row: Row) -> str:
    """What is said of a case as soon as it is measured."""
    times = f"{_digits(row.forward_ms)} ms forward, {_digits(row.both_ms)} ms with backward"
    return f"{row.name} at {row.height}x{row.width}: {times}"


def plot(rows: list[Row], options: argparse.Namespace) -> None:
    """Time and memory against the number of positions, log-log, a line each with its fitted exponent."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.name for row in rows))
    lines = [
        [row for row in rows if (row.name, row.plain) == (name, plain)] for name in names for plain in (False, True)
    ]
    lines = [sorted(line, key=lambda row: row.height * row.width) for line in lines if len(line) > 1]
    maps = sorted({(row.height * row.width, f"{row.height}x{row.width}") for row in rows})
    panels = {
        "forward_ms": "forward, ms",
        "both_ms": "forward and backward, ms",
        "forward_mb": "forward, MB at the peak",
        "both_mb": "forward and backward, MB at the peak",
    }
    figure = Figure(figsize=(14, 2 * max(4, 1 + len(lines) / 7)), layout="constrained")
    for axes, (field, title) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for line in sorted(
            lines, key=lambda line: -getattr(line[-1], field)
        ):  # the legend in the order of the line ends
            positions = [row.height * row.width for row in line]
            costs = [getattr(row, field) for row in line]
            i = names.index(line[0].name)
            axes.plot(
                positions,
                costs,
                "--" if line[0].plain else ("-", "-.", ":")[i // 20 % 3],
                color=colormaps["tab20"](i % 20),
                marker="o",
                markersize=3,
                linewidth=1.2,
                label=f"{_label(line[0])}  $N^{{{exponent(positions, costs):.2f}}}$",
            )
        axes.set(xscale="log", yscale="log", xlabel="map, H x W = N positions", title=title)
        axes.set_xticks([n for n, _ in maps], [label for _, label in maps])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, labelspacing=0.3, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.suptitle(
        f"{options.kind}, batch {options.batch}, {options.precision}, {device_name(options.device)}", fontsize=10
    )
    with replacing(options.plot) as path:
        figure.savefig(path, dpi=120, format=options.plot.suffix.removeprefix(".") or "png")


def _digits(figure: float) -> str:
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.3g}"


def _label(row: Row) -> str:
    return f"{row.name}, plain" if row.plain else row.name
