"""``contextzoo sweep``: one recipe trained with many heads, and a table of what came of it.

Every training is one ``contextzoo fit`` in a process of its own, so that one crash costs one training and memory is
measured for each. What came of it lies in its run's folder as ``result.json``; nothing else is shared, so that the same
command goes on after an interruption, and machines with a common disk can each take a part.
"""

import argparse
import importlib.util
import os
import re
from pathlib import Path

from lightning_app.app import configs
from lightning_app.runs import RUNS
from lightning_app.tools import sweep_report
from lightning_app.tools.parser import Parser
from lightning_app.tools.sweep_plan import plan, read_classes, read_options, read_variants
from lightning_app.tools.sweep_trainings import Trainings
from lightning_app.util.errors import InputError
from lightning_app.util.extras import install

GIVEN_HERE = ("--run", "--ckpt_path", "--model.head", "--seed_everything", "--data.fold")


def main(args: list[str]) -> int:
    """Run the command; 1 where a training failed."""
    options, words = _parse(args)
    if options.report is None:
        classes = read_classes(options.heads) if options.variants is None else {}
        given = (
            read_options(options.options, classes)
            if options.variants is None
            else read_variants(options.variants, options.only)
        )
        mine = plan(classes or given, options.seeds, options.out, os.environ, options.folds)
        Trainings(options, words, classes, given).run(mine)
        results = [training.result() or {} for training in mine]
        if any(results):
            sweep_report.write([options.out], options.to, per_image=options.per_image)
        # torchrun ends all other processes as soon as one reports a failure
        return int(any("error" in result for result in results) and "TORCHELASTIC_RUN_ID" not in os.environ)
    sweep_report.write(options.report or [options.out], options.to, per_image=options.per_image)
    return 0


def _parse(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(
        prog="contextzoo sweep",
        usage="contextzoo sweep RECIPE [options] [further words of contextzoo fit]\n"
        "       contextzoo sweep --report FOLDER|results.json ... [--to FILE.md]",
        description="Train one recipe with many heads, and compare them. The same command goes on where it was\n"
        "interrupted, skips what is finished and tries again what failed. Under torchrun or as a SLURM array each\n"
        "process takes a part.",
        epilog="examples:\n"
        "  contextzoo sweep recipes/camvid_cpu --heads fcn ccnet --jobs 2 --budget 2h --data.root DIR\n"
        "  contextzoo sweep --report runs/sweep/camvid_cpu runs/sweep/context_probe --to docs/results.md\n"
        "  torchrun --nproc_per_node 4 -m lightning_app sweep recipes/camvid --data.root DIR    (a training per GPU)\n"
        "  sbatch --array=0-7 --wrap 'contextzoo sweep recipes/camvid --data.root DIR'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("recipe", nargs="?", metavar="RECIPE", help="as in contextzoo fit -c RECIPE; comes first")
    add("--heads", nargs="+", default=["all"], metavar="SLUG", help="contextzoo heads lists them; default all")
    add("--options", metavar="NAME|FILE", help="what some heads are given besides: {head: {option: value}}")
    add("--variants", metavar="NAME|FILE", help="what is compared in place of heads: {name: {option of fit: value}}")
    add("--only", nargs="+", metavar="NAME", help="of the variants, train these")
    add("--seeds", type=int, default=3, metavar="N", help="trainings of each head; default 3")
    add(
        "--folds",
        type=int,
        metavar="N",
        help="cross-validation: train each head N times, each time without another N-th of the images to validate on",
    )
    add(
        "--per-image",
        action="store_true",
        help="count each validation image by itself, so that the table says which differences to FCN hold",
    )
    add("--budget", type=_seconds, metavar="TIME", help="100m or 2h: start no training that would not end within it")
    add("--jobs", type=int, default=1, metavar="N", help="trainings side by side, which share the cores; default 1")
    add("--wandb-project", metavar="NAME", help="log each training to W&B: the sweep is a group, each head a job type")
    add("--out", type=Path, metavar="DIR", help="runs, logs and report; default runs/sweep/RECIPE")
    add(
        "--report",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="train nothing: report what is in these folders of sweeps, their results.json, or in RECIPE's folder",
    )
    add("--to", type=Path, metavar="FILE.md", help="one page of all that is reported, its pictures beside it")
    options, words = parser.parse_known_args(args)
    for name in ("seeds", "jobs"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}: give a positive number")
    if options.variants is not None and (options.heads != ["all"] or options.options is not None):
        raise InputError("--variants are compared in place of heads: leave --heads and --options out")
    if options.only is not None and options.variants is None:
        raise InputError("--only chooses of --variants; heads are chosen by --heads")
    if options.folds is not None and options.folds < 2:
        raise InputError(f"--folds is {options.folds}: give 2 or more")
    options.per_image |= options.folds is not None  # a figure of all images needs the counts of each
    if options.recipe is None and not options.report:
        parser.error("which recipe? It comes first, as in contextzoo sweep recipes/camvid_cpu --data.root DIR")
    if options.report is not None and words:
        parser.error(f"--report trains nothing: leave out {' '.join(words)}")
    for word in words:
        if word.partition("=")[0] in GIVEN_HERE:
            raise InputError(f"{word}: the sweep gives it to each training; leave it out")
    if options.recipe is not None:
        options.out = options.out or RUNS / "sweep" / configs.find(options.recipe).stem
    if options.to and options.to.suffix != ".md":
        raise InputError(f"--to {options.to}: give the name of a Markdown file, such as docs/results.md")
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(f"sweep draws with matplotlib: {install('plot')}")
    return options, words


def _seconds(text: str) -> float:
    number = re.fullmatch(r"(\d+(?:\.\d+)?)([mh])", text)
    if number is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 100m or 2h")
    return float(number[1]) * {"m": 60, "h": 3600}[number[2]]
