"""``contextzoo probe``: from how far each head brings news, by training it on ContextProbe.

The backbone sees one cell, and every convolution of a head's skeleton is made 1x1, so that only the paper's operator
can connect cells. Accuracy on queries is 1 / textures without context, and is counted by the distance of the cue.
"""

import argparse
import importlib.util
import json
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from lightning_app.app import own_modules
from lightning_app.registry import HEADS
from lightning_app.tools.parser import Parser
from lightning_app.tools.probe_report import MODES, draw, show
from lightning_app.tools.probe_training import Recall, Result, Run, train
from lightning_app.util.errors import InputError
from lightning_app.util.extras import install
from lightning_app.util.files import make_folder


def main(args: list[str]) -> int:
    """Run the command; 1 where a head could not be trained."""
    options = _parse(args)
    slugs = HEADS.names(options.heads) or list(HEADS)
    wanted = [
        Run(slug, mode, seed, options.steps)
        for seed in range(options.seeds)
        for mode in options.modes
        for slug in slugs
    ]
    make_folder(options.out)
    store = options.out / "results.jsonl"
    results = _load(store)
    failed = _train_all([run for run in wanted if run not in results], results, store, options.jobs)
    done = {run: results[run] for run in wanted if run in results}
    if done:
        show(done)
        draw(done, options.out / "probe.png")
    return int(failed)


def _parse(args: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="contextzoo probe",
        description="Train each head on ContextProbe and count its answers by the distance of the cue.",
        epilog="example: contextzoo probe fcn nonlocal_net ccnet --modes anywhere cross --jobs 2",
    )
    add = parser.add_argument
    add("heads", nargs="*", metavar="HEAD", help="slugs; default all")
    add("--modes", nargs="+", choices=MODES, default=MODES, metavar="MODE", help="anywhere, cross, near; default all")
    add("--seeds", type=int, default=3, metavar="N", help="trainings of each head and mode; default 3")
    add("--steps", type=int, default=600, metavar="N", help="of a training; default 600")
    add("--jobs", type=int, default=1, metavar="N", help="trainings side by side, one thread each; default 1")
    add("--out", type=Path, default=Path("runs/probe"), metavar="DIR", help="results, kept; default runs/probe")
    options = parser.parse_args(args)
    for name in ("seeds", "steps", "jobs"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}: give a positive number")
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(f"probe draws with matplotlib: {install('plot')}")
    return options


def _load(store: Path) -> dict[Run, Result]:
    """Results of earlier calls."""
    results = {}
    for number, line in enumerate(store.read_text().splitlines() if store.exists() else [], 1):
        try:
            entry = json.loads(line)
            run = Run(*(entry[name] for name in ("head", "mode", "seed", "steps")))
            results[run] = Result(Recall(entry["hits"], entry["queries"]), entry["parameters"], entry["seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{store}, line {number}: not a result ({error!r}). Remove the line.") from error
    return results


def _train_all(runs: Sequence[Run], results: dict[Run, Result], store: Path, jobs: int) -> bool:
    """Add the results of ``runs``, each stored as soon as it is there; whether any failed."""
    failed = False
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=own_modules.import_named)
    try:
        futures = {pool.submit(train, run): run for run in runs}
        for count, future in enumerate(as_completed(futures), 1):
            run = futures[future]
            place = f"[{count}/{len(runs)}] {run.head} {run.mode} seed {run.seed}"
            try:
                result = future.result()
            except (RuntimeError, ValueError, TypeError) as error:
                failed = True
                print(f"{place} could not be trained: {str(error).partition(chr(10))[0]}", file=sys.stderr)
                continue
            results[run] = result
            entry = asdict(run) | result.recall._asdict()
            with store.open("a") as file:
                file.write(json.dumps(entry | {"parameters": result.parameters, "seconds": result.seconds}) + "\n")
            print(f"{place}: {result.recall.accuracy:.3f} in {result.seconds:.0f} s of CPU time", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    return failed
