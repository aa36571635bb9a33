"""Commands as people type them, on a dataset and a network of seconds."""

import csv
import os
import subprocess
import sys
from pathlib import Path

from lightning_app.app.cli import main

TESTS = Path(__file__).parent
PROBE = (
    "-c backbone/patch8 --model.backbone.channels 8 --model.head FCN --model.head.channels 8 "
    "--data ContextProbe --data.cells 5 --data.colours 2 --data.textures 2 --data.queries 2 "
    "--data.train_images 6 --data.val_images 5 --data.test_images 7 --data.batch_size 2 --data.val_batch_size 2 "
    "--trainer.accelerator cpu --trainer.max_epochs 2 --trainer.log_every_n_steps 1"
)


def run(command: str) -> int:
    """``contextzoo command`` in this process and folder; returns the exit status."""
    try:
        return main(command.split())
    except SystemExit as exit:  # argparse's way to end after --print_config and --help
        return int(exit.code or 0)


def typed(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """``contextzoo command`` in a process of its own, started in ``folder``."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    for name in ("CONTEXTZOO_RUN", "CONTEXTZOO_IMPORT", "LOCAL_RANK"):
        environment.pop(name, None)
    arguments = [sys.executable, "-m", "lightning_app", *command.split()]
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def logged(run: Path, column: str, version: int = 0) -> list[float]:
    """What a run wrote to its CSV file under ``column``."""
    with (run / "csv" / f"version_{version}" / "metrics.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]
