"""The trainings of ``contextzoo sweep``, side by side: each a process of its own, recorded when it ends."""

import argparse
import fcntl
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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from resource import struct_rusage
from statistics import mean
from threading import Lock, Timer
from typing import IO, Any, NoReturn

from lightning_app.app import own_modules
from lightning_app.runs import RUNS
from lightning_app.tools import sweep_report, sweep_table
from lightning_app.tools.sweep_plan import Training
from lightning_app.util.checkout import commit
from lightning_app.util.errors import InputError
from lightning_app.util.files import make_folder, replacing

PATIENCE = 10  # seconds for trainings to end when they are told to
LAUNCHER = re.compile(r"SLURM_|TORCHELASTIC_|MASTER_|((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE))$")

CSV = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": ".", "name": "csv"}}  # read below


class Trainings:
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
        make_folder(self.options.out)
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
        logger = []
        if project := self.options.wandb_project:
            told = {"save_dir": ".", "project": project, "group": self.options.out.name, "job_type": training.head}
            wandb = {"class_path": "lightning_app.callbacks.WandbRunLogger", "init_args": told}
            logger = ["-c", "logger/wandb", "--trainer.logger", json.dumps([CSV, wandb])]
        own = [word for module in own_modules.names() for word in (own_modules.OPTION, module)]
        return ["fit", *own, "-c", self.options.recipe, *logger, *head, *seed, *self.words, "--run", str(run)]

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
