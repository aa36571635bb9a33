"""``contextzoo bench``: what blocks and heads cost, and how the cost grows with the map.

Parameters, GFLOP, time and peak memory of the forward pass and of the forward and backward pass, the share of this
machine's roofline; with ``--reference`` beside the plain transcription of the paper's maths, in interleaved pairs.
"""

import argparse
import ast
import csv
import importlib.util
import json
import sys
from contextlib import suppress
from dataclasses import asdict, fields
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from lightning_app.registry import BLOCKS, HEADS
from lightning_app.tools.bench_models import models
from lightning_app.tools.bench_show import in_short, plot, show
from lightning_app.tools.bench_subject import STRIDES, Row, Subject, has_plain, measure
from lightning_app.tools.bench_timing import device_name
from lightning_app.tools.parser import Parser
from lightning_app.tools.roofline import Roofline
from lightning_app.util.errors import InputError
from lightning_app.util.extras import install
from lightning_app.util.files import replacing


def main(args: list[str]) -> int:
    """Run the command; 1 where something could not be measured."""
    options = _parse(args)
    torch.set_num_threads(options.threads)
    if options.kind == "models":
        return models(options)
    subjects = _subjects(options)
    progress = Console(stderr=True)
    cases = [(subject, size) for subject in subjects for size in options.sizes]
    rows: list[Row] = []
    failed = False
    sizes = ", ".join(f"{height}x{width}" for height, width in options.sizes)
    what = f"{len(subjects)} {options.kind}" if len(subjects) > 1 else subjects[0].name
    progress.print(f"Measuring {what} at {sizes}, {options.repeats} times each", highlight=False)
    roofline = Roofline.measured(options.device, options.precision)
    bar = track(cases, "Measuring", console=progress, disable=not progress.is_terminal, transient=True)
    for number, (subject, size) in enumerate(bar, 1):
        try:
            measured = [roofline.with_share(row) for row in measure(subject, size, options)]
            rows += measured
            progress.print(f"[{number}/{len(cases)}] {in_short(measured[0])}", markup=False, highlight=False)
        except (RuntimeError, ValueError) as error:
            failed = True
            reason = str(error).partition("\n")[0]
            print(f"{subject.name} at {size[0]}x{size[1]} could not be measured: {reason}", file=sys.stderr)
    show(rows, options, roofline)
    if options.json:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        settings |= {"machine": device_name(options.device), "torch": torch.__version__, "roofline": asdict(roofline)}
        with replacing(options.json) as path:
            path.write_text(json.dumps({"settings": settings, "rows": [asdict(row) for row in rows]}, indent=1))
    if options.csv:
        with replacing(options.csv) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)])
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    if options.plot:
        plot(rows, options)
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
    add("kind", choices=("blocks", "heads", "models"), help="models: whole networks, plain against .fast()")
    add("names", nargs="*", metavar="NAME", help="slugs, arguments after a colon as in ccnet:recurrence=1; default all")
    add(
        "--sizes", nargs="+", type=_size, metavar="HxW", help="maps at stride 8; default 32x64. models: images, 512x512"
    )
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
    options.sizes = options.sizes or [(512, 512) if options.kind == "models" else (32, 64)]
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
            without = [entry.slug for entry in entries if not has_plain(entry)]
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
