"""``contextzoo bench``: what blocks and heads cost, and how the cost grows with the map.

Parameters, GFLOP, time and peak memory of the forward pass and of the forward and backward pass; with ``--reference``
beside the plain transcription of the paper's maths, in interleaved pairs.
"""

import argparse
import ast
import copy
import csv
import importlib.util
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_app import kernels
from lightning_app.kernels.products import FLOPS
from lightning_app.registry import BLOCKS, HEADS, Entry
from lightning_app.tools.parser import Parser
from lightning_app.util.errors import InputError
from lightning_app.util.extras import install
from lightning_app.util.files import replacing

REFERENCES = Path(__file__).parents[2] / "benchmarks" / "reference"
STRIDES = {8: (4, 8, 8, 8), 16: (4, 8, 16, 16), 32: (4, 8, 16, 32)}  # of a backbone's levels, by output stride


@dataclass(frozen=True)
class Subject:
    """A block or head as it was named, and how it is built."""

    name: str
    entry: Entry
    arguments: dict[str, Any]

    def plain(self) -> nn.Module:
        """The class of the same name in the reference file, or else the block itself, where its formula stands beside a
        fast form: to be run with fast(False). Same arguments, same state dict."""
        path = REFERENCES / f"{self.entry.slug}.py"
        if not path.is_file() and hasattr(self.entry.cls, "fast"):
            block: nn.Module = self.entry.cls(**self.arguments)
            return block
        spec = importlib.util.spec_from_file_location(f"plain_{self.entry.slug}", path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise InputError(f"{self.name} has no plain form: {path} is not there (only a checkout holds them)")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        plain: nn.Module = getattr(module, self.entry.cls.__name__)(**self.arguments)
        return plain


def _has_plain(entry: Entry) -> bool:
    return hasattr(entry.cls, "fast") or (REFERENCES / f"{entry.slug}.py").is_file()


@dataclass(frozen=True)
class Row:
    """Cost on one map; the plain form of a block has a row of its own after the block's.

    ``_ms``: median; ``_spread_ms``: half the interquartile range; ``_mb``: 2^20 bytes of tensors at the peak, beyond
    weights and inputs; ``gflop``: of the forward pass, 2 per multiply-add.
    """

    name: str
    plain: bool
    height: int
    width: int
    parameters: int
    gflop: float
    forward_ms: float
    forward_spread_ms: float
    both_ms: float
    both_spread_ms: float
    forward_mb: float
    both_mb: float
    forward_speedup: float | None = None  # median over the pairs of the plain form's time / ours
    both_speedup: float | None = None
    difference: float | None = None  # largest difference of the outputs / largest magnitude of the plain form's


class Case:
    """A module in eval mode and its inputs, to be run forward, or forward and backward; its operators fast or plain."""

    def __init__(
        self, module: nn.Module, inputs: tuple[Any, ...], leaves: Sequence[Tensor], bf16: bool, fast: bool = True
    ) -> None:
        self.module, self.inputs, self.bf16, self.fast = module.eval(), inputs, bf16, fast
        self.leaves = [*leaves, *module.parameters()]
        self.device = leaves[0].device
        self.gradients = [torch.randn_like(output) for output in self.outputs()]

    @torch.no_grad()
    def forward(self) -> Tensor:
        """The prediction, as at inference."""
        with kernels.fast(self.fast), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            prediction: Tensor = self.module(*self.inputs)
        return prediction

    def outputs(self) -> list[Tensor]:
        """All that a loss would see: a head's side outputs too."""
        with kernels.fast(self.fast), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            if not isinstance(self.inputs[0], list):
                return [self.module(*self.inputs)]
            logits, auxiliary = self.module.outputs(*self.inputs)  # type: ignore[operator]
            return [logits, *(side.logits for side in auxiliary)]

    def both(self) -> None:
        """Forward pass, and gradients of weights and inputs."""
        self.clear()
        with kernels.fast(self.fast):
            torch.autograd.backward(self.outputs(), self.gradients)

    def gflop(self) -> float:
        """Of the forward pass."""
        with kernels.fast(self.fast):
            return gflop(self.module, *self.inputs)

    def clear(self) -> None:
        """Drop the gradients."""
        for leaf in self.leaves:
            leaf.grad = None


def main(args: list[str]) -> int:
    """Run the command; 1 where something could not be measured."""
    options = _parse(args)
    torch.set_num_threads(options.threads)
    subjects = _subjects(options)
    progress = Console(stderr=True)
    cases = [(subject, size) for subject in subjects for size in options.sizes]
    rows: list[Row] = []
    failed = False
    sizes = ", ".join(f"{height}x{width}" for height, width in options.sizes)
    what = f"{len(subjects)} {options.kind}" if len(subjects) > 1 else subjects[0].name
    progress.print(f"Measuring {what} at {sizes}, {options.repeats} times each", highlight=False)
    bar = track(cases, "Measuring", console=progress, disable=not progress.is_terminal, transient=True)
    for number, (subject, size) in enumerate(bar, 1):
        try:
            measured = _measure(subject, size, options)
            rows += measured
            progress.print(f"[{number}/{len(cases)}] {_in_short(measured[0])}", markup=False, highlight=False)
        except (RuntimeError, ValueError) as error:
            failed = True
            reason = str(error).partition("\n")[0]
            print(f"{subject.name} at {size[0]}x{size[1]} could not be measured: {reason}", file=sys.stderr)
    _show(rows, options)
    if options.json:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        settings |= {"machine": device_name(options.device), "torch": torch.__version__}
        with replacing(options.json) as path:
            path.write_text(json.dumps({"settings": settings, "rows": [asdict(row) for row in rows]}, indent=1))
    if options.csv:
        with replacing(options.csv) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)])
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    if options.plot:
        _plot(rows, options)
    for path in filter(None, (options.json, options.csv, options.plot)):
        print(f"Wrote {path}")
    return int(failed)


def _parse(args: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="contextzoo bench",
        description="Parameters, GFLOP, time and peak memory of blocks or heads.",
        epilog="example: contextzoo bench blocks ccnet ccnet:recurrence=1 pam --sizes 32x64 64x128 --plot cost.png",
    )
    add = parser.add_argument
    add("kind", choices=("blocks", "heads"))
    add("names", nargs="*", metavar="NAME", help="slugs, arguments after a colon as in ccnet:recurrence=1; default all")
    add("--sizes", nargs="+", type=_size, default=[(32, 64)], metavar="HxW", help="maps at stride 8; default 32x64")
    add("--batch", type=int, default=1, metavar="B")
    add("--channels", type=int, metavar="C", help="width of the blocks (default 512) or heads (default each paper's)")
    add("--in-channels", nargs=4, type=int, default=[256, 512, 1024, 2048], metavar="C", help="heads: of the 4 levels")
    add("--output-stride", type=int, choices=STRIDES, default=8, help="heads: of the last level; default 8")
    add("--num-classes", type=int, default=19, metavar="K", help="heads; default 19")
    add("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 by autocast; default fp32")
    add("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="of the CPU")
    add("--repeats", type=int, default=3, metavar="N", help="timings, of which the median counts; default 3")
    add("--reference", action="store_true", help="blocks: compare with the plain form, which a checkout holds")
    add("--json", type=Path, metavar="FILE")
    add("--csv", type=Path, metavar="FILE")
    add("--plot", type=Path, metavar="FILE.png", help="time and memory against the number of positions")
    options = parser.parse_args(args)
    for name in ("batch", "channels", "num_classes", "threads", "repeats"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}: give a positive number")
    for path in filter(None, (options.json, options.csv, options.plot)):
        if not path.parent.is_dir():
            raise InputError(f"Cannot write {path}: the folder {path.parent} is not there")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        raise InputError(f"--plot needs matplotlib: {install('plot')}")
    if options.plot and len({height * width for height, width in options.sizes}) < 2:
        raise InputError("--plot needs two sizes or more, such as --sizes 32x64 64x128")
    if options.reference and options.kind == "heads":
        raise InputError("--reference compares blocks, not heads: contextzoo bench blocks --reference")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA device")
    return options


def _size(text: str) -> tuple[int, int]:
    height, times, width = text.partition("x")
    if not (times and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 64x128")
    return int(height), int(width)


def _subjects(options: argparse.Namespace) -> list[Subject]:
    """What was named; a wrong name or argument is found before anything is measured."""
    registry, common = BLOCKS, {"channels": options.channels or 512}
    if options.kind == "heads":
        registry, common = HEADS, {"in_channels": options.in_channels, "num_classes": options.num_classes}
    subjects = []
    words = [part for word in options.names or ["all"] for part in ([word] if ":" in word else word.split(","))]
    for name in filter(None, words):
        slug, _, settings = name.partition(":")
        pairs = [setting.partition("=") for setting in settings.split(",") if setting]
        entries = list(registry.values()) if slug == "all" else [registry[slug]]
        if slug == "all" and options.reference:
            without = [entry.slug for entry in entries if not _has_plain(entry)]
            entries = [entry for entry in entries if entry.slug not in without]
            if without:
                print(f"Without a plain form, left out: {', '.join(without)}", file=sys.stderr)
        for entry in entries:
            arguments = common | {key: _value(value) for key, _, value in pairs}
            if options.channels and "channels" in signature(entry.cls).parameters:
                arguments = {"channels": options.channels} | arguments
            subject = Subject(entry.slug + name[len(slug) :], entry, arguments)
            try:
                with suppress(RuntimeError), torch.device("meta"):  # the few that look at numbers cannot be built there
                    entry.cls(**arguments)
                if options.reference:
                    subject.plain()
            except TypeError as error:
                raise InputError(f"{subject.name}: {error}") from error
            subjects.append(subject)
    return subjects


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _measure(subject: Subject, size: tuple[int, int], options: argparse.Namespace) -> list[Row]:
    """Rows of the subject and, where asked for, of its plain form."""
    torch.manual_seed(0)
    modules = [subject.entry.cls(**subject.arguments).to(options.device)]
    for parameter in modules[0].parameters():
        if not parameter.any():  # a gate that starts closed would hide what is behind it
            nn.init.uniform_(parameter, 0.1, 0.5)
    if options.reference:
        modules.append(subject.plain().to(options.device))
        modules[1].load_state_dict(modules[0].state_dict())

    if options.kind == "blocks":
        shapes = [(options.batch, subject.arguments["channels"], *size)]
    else:
        shapes = [
            (options.batch, channels, -(-size[0] * 8 // stride), -(-size[1] * 8 // stride))
            for channels, stride in zip(options.in_channels, STRIDES[options.output_stride], strict=True)
        ]
    leaves = [torch.randn(shape, device=options.device, requires_grad=True) for shape in shapes]
    inputs: tuple[Any, ...] = (leaves[0],) if options.kind == "blocks" else (leaves,)
    cases = [Case(module, inputs, leaves, options.precision == "bf16", i == 0) for i, module in enumerate(modules)]

    clock = time.process_time if _cpu_time(options) else time.perf_counter
    forward = interleaved([case.forward for case in cases], options.repeats, clock)
    both = interleaved([case.both for case in cases], options.repeats, clock)
    rows = []
    for i, case in enumerate(cases):
        compared: dict[str, float] = {}
        if options.reference and i == 0:
            plain = cases[1].forward().double()
            compared = {
                "forward_speedup": statistics.median(b / a for a, b in zip(*forward, strict=True)),
                "both_speedup": statistics.median(b / a for a, b in zip(*both, strict=True)),
                "difference": ((case.forward() - plain).abs().max() / plain.abs().max()).item(),
            }
        rows.append(
            Row(
                subject.name,
                plain=i > 0,
                height=size[0],
                width=size[1],
                parameters=sum(parameter.numel() for parameter in case.module.parameters()),
                gflop=case.gflop(),
                forward_ms=statistics.median(forward[i]),
                forward_spread_ms=_spread(forward[i]),
                both_ms=statistics.median(both[i]),
                both_spread_ms=_spread(both[i]),
                forward_mb=peak_mb(case.forward, case),
                both_mb=peak_mb(case.both, case),
                **compared,
            )
        )
    return rows


def interleaved(
    functions: Sequence[Callable[[], object]], repeats: int, clock: Callable[[], float]
) -> list[list[float]]:
    """Milliseconds a call, ``repeats`` times for each function in turn, so that a slow spell of the machine hits all.

    Short functions are called as often as fills 10 ms, at most 100 times.
    """

    def milliseconds(function: Callable[[], object], calls: int) -> float:
        _synchronize()
        start = clock()
        for _ in range(calls):
            function()
        _synchronize()
        return (clock() - start) * 1e3 / calls

    for function in functions:
        milliseconds(function, 1)  # allocators, kernels and caches warm up
    calls = [min(100, 1 + int(10 / milliseconds(function, 1))) for function in functions]
    rounds = [[milliseconds(f, n) for f, n in zip(functions, calls, strict=True)] for _ in range(repeats)]
    return [list(times) for times in zip(*rounds, strict=True)]


def peak_mb(function: Callable[[], object], case: Case) -> float:
    """Memory of tensors at its highest while ``function`` runs, in MB of 2^20 bytes beyond what was held before.

    On CUDA the allocator's own peak; on the CPU the same figure from the allocator's events. Neither counts the scratch
    memory that libraries take past torch's allocator.
    """
    case.clear()
    if case.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler talks on stderr
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


def exponent(positions: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of log(cost) over log(N), least squares: cost ~ N^exponent."""
    return statistics.linear_regression([math.log(n) for n in positions], [math.log(cost) for cost in costs]).slope


def gflop(module: nn.Module, *inputs: Any) -> float:
    """Of the forward pass, counted on the CPU: kernels of our own on CUDA are not known to the counter."""
    module = copy.deepcopy(module).cpu().requires_grad_(False)
    inputs = tuple([x.detach().cpu() for x in i] if isinstance(i, list) else i.detach().cpu() for i in inputs)
    with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
        module(*inputs)
    total: int = counter.get_total_flops()
    return total / 1e9


def _spread(times: list[float]) -> float:
    if len(times) < 2:
        return 0.0
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return (high - low) / 2


def _cpu_time(options: argparse.Namespace) -> bool:
    """Whether CPU time stands for the time it takes: one thread, whose neighbours on the machine should not count."""
    return bool(options.device == "cpu" and options.threads == 1)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_name(device: str) -> str:
    """What the GPU, or the CPU, is called."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _show(rows: list[Row], options: argparse.Namespace) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=200)
    width = f"{options.channels or 512} channels" if options.kind == "blocks" else f"levels {options.in_channels}"
    machine = device_name(options.device) + (f", threads: {options.threads}" if options.device == "cpu" else "")
    notes = [
        f"{machine}, torch {torch.__version__}.",
        f"{'CPU time' if _cpu_time(options) else 'Times'}: median of {options.repeats} ± half the interquartile range.",
        "GFLOP: convolutions and matrix products of the forward pass, 2 per multiply-add.",
        "MB: peak of tensors beyond weights and inputs.",
    ]
    if options.reference:
        notes.append("Against the plain form: times as fast, share of its memory, largest difference.")
    table = Table(
        title=f"{options.kind}: batch {options.batch}, {width}, {options.precision}",
        caption=" ".join(notes),
        box=box.SIMPLE if console.is_terminal else None,
    )
    columns = ["map", "params", "GFLOP", "fwd ms", "fwd+bwd ms", "fwd MB", "fwd+bwd MB"]
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


def _in_short(row: Row) -> str:
    """What is said of a case as soon as it is measured."""
    times = f"{_digits(row.forward_ms)} ms forward, {_digits(row.both_ms)} ms with backward"
    return f"{row.name} at {row.height}x{row.width}: {times}"


def _plot(rows: list[Row], options: argparse.Namespace) -> None:
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
