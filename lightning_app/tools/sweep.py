"""``contextzoo sweep``: one recipe trained with many heads, and a table of what came of it.

Every training is one ``contextzoo fit`` in a process of its own, so that one crash costs one training and memory is
measured for each. What came of it lies in its run's folder as ``result.json``; nothing else is shared, so that the same
command goes on after an interruption, and machines with a common disk can each take a part.
"""

import argparse
import fcntl
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from resource import struct_rusage
from statistics import mean
from threading import Lock, Timer
from typing import IO, Any, NoReturn

import yaml

from lightning_app.app import configs, own_modules
from lightning_app.runs import RUNS
from lightning_app.tools import sweep_report, sweep_table
from lightning_app.tools.parser import Parser
from lightning_app.util.checkout import commit
from lightning_app.util.errors import InputError
from lightning_app.util.extras import install
from lightning_app.util.files import replacing

PATIENCE = 10  # seconds for trainings to end when they are told to
GIVEN_HERE = ("--run", "--ckpt_path", "--model.head", "--seed_everything", "--data.fold")
LAUNCHER = re.compile(r"SLURM_|TORCHELASTIC_|MASTER_|((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE))$")


@dataclass(frozen=True)
class Training:
    """One head with one seed, in cross-validation on one fold of the images, and its run's folder."""

    head: str
    seed: int
    fold: int | None
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def last(self) -> Path:
        """The checkpoint from which an interrupted training goes on."""
        return self.folder / "checkpoints" / "last.ckpt"

    def result(self) -> dict[str, Any] | None:
        """What was recorded: a result, or a failure with its ``error``; None before the training's end."""
        return sweep_report.read(self.folder) if (self.folder / sweep_report.RESULT).is_file() else None


def main(args: list[str]) -> int:
    """Run the command; 1 where a training failed."""
    options, words = _parse(args)
    if options.report is None:
        classes = _classes(options.heads) if options.variants is None else {}
        given = _given(options.options, classes) if options.variants is None else read_variants(options.variants)
        mine = plan(classes or given, options.seeds, options.out, os.environ, options.folds)
        _Sweep(options, words, classes, given).run(mine)
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


def _classes(slugs: Sequence[str]) -> dict[str, str]:
    """Slug -> class of the heads that were named. From their configurations: their code would load torch in here."""
    files = [name for name in configs.names() if name.startswith("head/")]
    known = {name.removeprefix("head/"): _class_in(configs.find(name)) for name in files}
    slugs = [slug for words in slugs for slug in words.replace(",", " ").split()]
    if own_modules.names() or not {*slugs} <= {"all", *known}:
        from lightning_app.registry import HEADS

        known |= {
            slug: f"{entry.cls.__module__}.{entry.cls.__qualname__}"
            for slug, entry in HEADS.items()
            if slug not in known
        }
        slugs = slugs if "all" in slugs else HEADS.names(slugs)
    return known if "all" in slugs else {slug: known[slug] for slug in slugs}


def _class_in(config: Path) -> str:
    return str(yaml.safe_load(config.read_text())["model"]["head"]["class_path"])


def _given(name: str | None, heads: Iterable[str]) -> dict[str, list[str]]:
    """Slug -> words of ``fit`` for the heads that a file of options names."""
    if name is None:
        return {}
    path = configs.find(name)
    try:
        options = yaml.safe_load(path.read_text())
        given = {
            head: [f"--model.head.{option}={json.dumps(value)}" for option, value in arguments.items()]
            for head, arguments in options.items()
        }
    except (AttributeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: write HEAD: {{OPTION: VALUE}} on each line ({error})") from error
    _classes(list(given))  # says where a name is wrong
    return given


def read_variants(name: str) -> dict[str, list[str]]:
    """Name -> words of ``fit`` of each variant in a file."""
    path = configs.find(name)
    try:
        variants = yaml.safe_load(path.read_text())
        words = {
            str(variant): [f"--{option}={json.dumps(value)}" for option, value in options.items()]
            for variant, options in variants.items()
        }
    except (AttributeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: write NAME: {{OPTION: VALUE}} on each line ({error})") from error
    for variant in words:
        if not re.fullmatch(r"\w[\w.-]*", variant):
            raise InputError(f"{path}: {variant!r} cannot name a folder: use letters, digits, _ and -")
    return words


def plan(
    heads: Iterable[str], seeds: int, out: Path, environment: Mapping[str, str], folds: int | None = None
) -> list[Training]:
    """What this process trains: every n-th training by torchrun's or SLURM's variables; all heads' first seed first."""
    parts: list[int | None] = [*range(folds)] if folds else [None]
    each = [(head, seed, part) for seed in range(seeds) for head in heads for part in parts]
    trainings = [Training(*one, out / sweep_report.run_name(*one)) for one in each]
    first, step = int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
    if "SLURM_ARRAY_TASK_ID" in environment:
        task, least, stride, count = (
            int(environment.get(f"SLURM_ARRAY_TASK_{name}", default))
            for name, default in (("ID", 0), ("MIN", 0), ("STEP", 1), ("COUNT", 1))
        )
        first, step = first + (task - least) // stride * step, step * count
    return trainings[first::step]


class _Sweep:
    """Trainings side by side, within a budget."""

    def __init__(
        self,
        options: argparse.Namespace,
        words: list[str],
        classes: Mapping[str, str],
        given: Mapping[str, list[str]],
    ) -> None:
        self.options, self.words, self.classes, self.given = options, words, classes, given
        out: Path = options.out
        self.runs = RUNS if out.is_relative_to(RUNS) else out  # the folder that --run names are of
        self.threads = max(1, _cores() // (options.jobs * int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
        self.commit = commit(mark_changes=True)
        self.started = time.monotonic()
        self.seconds: list[float] = []  # of whole trainings
        self.refusals: set[str] = set()
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.stopped = False
        self.lock = Lock()

    def run(self, trainings: Sequence[Training]) -> None:
        """Train what is not finished."""
        self.todo = deque(training for training in trainings if not self._is_finished(training))
        self.total = len(self.todo)
        if not self.todo:
            return
        print(f"{self.total} of {len(trainings)} trainings to do, threads each: {self.threads}", flush=True)
        self.options.out.mkdir(parents=True, exist_ok=True)
        before = signal.signal(signal.SIGTERM, _interrupt)
        with ThreadPoolExecutor(self.options.jobs) as pool:
            try:
                for future in [pool.submit(self._work) for _ in range(self.options.jobs)]:
                    future.result()
            finally:
                self._stop()
                signal.signal(signal.SIGTERM, before)
        if self.todo:
            print(f"The budget ends here, trainings left: {len(self.todo)}. The same command goes on with them.")

    def _is_finished(self, training: Training) -> bool:
        result = training.result()
        if result is None or "error" in result:
            return False
        theirs = [result.get(name) for name in ("recipe", "options", "variants", "folds")]
        ours = [getattr(self.options, name) for name in ("recipe", "options", "variants", "folds")]
        if (theirs, sweep_report.portable(result["words"])) != (ours, sweep_report.portable(self.words)):
            raise InputError(f"{training.folder} holds {result['command']}, which is another sweep: give another --out")
        if not result["resumed"]:
            self.seconds.append(60 * result["minutes"])
        return True

    def _stop(self) -> None:
        with self.lock:
            self.stopped = True
            for process in self.processes:
                process.terminate()  # a training ends with the batch that it is at
            if self.processes:
                timer = Timer(PATIENCE, self._kill)
                timer.daemon = True
                timer.start()

    def _kill(self) -> None:
        with self.lock:
            for process in self.processes:
                process.kill()

    def _work(self) -> None:
        """Train one after another while there is something to do and time for it."""
        try:
            while True:
                with self.lock:
                    if self.stopped or not self.todo or not self._is_time():
                        return
                    training = self.todo.popleft()
                    number = self.total - len(self.todo)
                if said := self._train(training):
                    fold = "" if training.fold is None else f" fold {training.fold}"
                    print(f"[{number}/{self.total}] {training.head} seed {training.seed}{fold}: {said}", flush=True)
        except BaseException:
            self._stop()
            raise

    def _is_time(self) -> bool:
        budget = self.options.budget
        return not (budget and self.seconds) or time.monotonic() - self.started + mean(self.seconds) <= budget

    def _train(self, training: Training) -> str:
        """Train and record what came of it; returns it in a line, empty where all is being stopped."""
        with training.log.open("ab") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fit inherits it, should this process die before it
            except BlockingIOError:
                return f"another process trains it ({training.log} is locked)"
            known = training.result()
            if known and "error" not in known:
                return "another process has trained it"
            command = self._command(training)
            typed = shlex.join(["contextzoo", *command])
            interrupted = known is None or known["status"] <= 0 or known["status"] > 128  # killed, stopped, or unread
            resumed = interrupted and training.last.is_file() and typed == _lines(training.log)[0]
            if resumed:  # the checkpoint holds everything else
                command = ["fit", *command[-2:], "--ckpt_path", str(training.last)]
            else:
                shutil.rmtree(training.folder, ignore_errors=True)
                log.truncate(0)
                log.write(f"{typed}\n".encode())
                log.flush()
            record = {
                "head": training.head,
                "seed": training.seed,
                "fold": training.fold,
                "folds": self.options.folds,
                "recipe": self.options.recipe,
                "options": self.options.options,
                "variants": self.options.variants,
                "words": self.words,
                "command": typed,
                "commit": self.commit,
                "date": datetime.now().astimezone().isoformat(timespec="seconds"),
                "threads": self.threads,
                "resumed": resumed,
            }
            started = time.monotonic()
            ended = self._call(command, log)
            seconds = time.monotonic() - started
            if ended is None:
                return ""
            status, usage = ended
            refused = status == 2 and not training.folder.exists()  # bad input, found before anything was written
            try:
                if status:
                    raise InputError(_reason(status, training.log))
                measured = _measure(training, log)
            except Exception as error:  # whatever it is, the other trainings go on
                message = " ".join(str(error).split())
                record |= {"error": message, "status": status, "log": str(training.log)}
                said = f"failed: {message} ({training.log})"
            else:
                self.seconds += [] if resumed else [seconds]
                record |= measured | _resources(seconds, usage)
                figure = sweep_table.figure_of([measured])
                said = f"{figure} {100 * measured[figure]:.1f} in {seconds / 60:.1f} min"
            with replacing(training.folder / sweep_report.RESULT) as path:
                path.write_text(json.dumps(record, indent=1))
        if refused and not self.seconds:
            if message in self.refusals:  # of two heads: it is not the head's fault, and the others would say it too
                raise InputError(message)
            self.refusals.add(message)
        return said

    def _command(self, training: Training) -> list[str]:
        """What one would type for this training."""
        run = training.folder.relative_to(self.runs)
        head = ["--model.head", self.classes[training.head]] if self.classes else []
        head += self.given.get(training.head, [])
        seed = ["--seed_everything", str(training.seed)]
        if training.fold is not None:
            seed += ["--data.fold", f"[{training.fold},{self.options.folds}]"]
        own = [word for module in own_modules.names() for word in (own_modules.OPTION, module)]
        return ["fit", *own, "-c", self.options.recipe, *head, *seed, *self.words, "--run", str(run)]

    def _call(self, command: Sequence[str], log: IO[bytes]) -> tuple[int, struct_rusage] | None:
        """Exit status and resources of a command of ours; None where all is being stopped."""
        with self.lock:
            if self.stopped:
                return None
            process = subprocess.Popen(
                [sys.executable, "-m", "lightning_app", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(self.threads) | {"CONTEXTZOO_RUNS": str(self.runs)},
            )
            self.processes.add(process)
        _, status, usage = os.wait4(process.pid, 0)
        with self.lock:
            process.returncode = os.waitstatus_to_exitcode(status)
            self.processes.remove(process)
            return None if self.stopped else (process.returncode, usage)


def _measure(training: Training, log: IO[bytes]) -> dict[str, Any]:
    """What a training came to, by a process of its own: a training's peak of memory begins with that of its parent."""
    command = [sys.executable, "-m", "lightning_app.tools.sweep_result", str(training.folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, env=_environment(1))
    if done.returncode:
        raise InputError(_reason(done.returncode, training.log))
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _reason(status: int, log: Path) -> str:
    """Why a training ended, in one line."""
    said = _lines(log)[-1]
    return said if status > 0 else f"killed by {signal.Signals(-status).name}, after: {said}"


def _lines(log: Path) -> list[str]:
    """All that are not blank; the first is the command."""
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()]


def _resources(seconds: float, usage: struct_rusage) -> dict[str, float]:
    unit = 1 if sys.platform == "darwin" else 2**10
    return {
        "minutes": seconds / 60,
        "cpu_minutes": (usage.ru_utime + usage.ru_stime) / 60,
        "peak_memory_mb": usage.ru_maxrss * unit / 2**20,
    }


def _environment(threads: int) -> dict[str, str]:
    """Of a training: alone, whatever has launched this process, and on this process's GPU."""
    environment = {name: value for name, value in os.environ.items() if not LAUNCHER.match(name)}
    if "LOCAL_RANK" in os.environ:
        local = int(os.environ["LOCAL_RANK"])
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[local] if visible else str(local)
    return environment | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
