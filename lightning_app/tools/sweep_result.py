"""What a finished training of ``contextzoo sweep`` came to, read from its run's folder and printed as JSON.

python -m lightning_app.tools.sweep_result RUN
"""

import csv
import importlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from lightning_app.app.own_modules import import_named
from lightning_app.reading import specs
from lightning_app.registry import TASKS
from lightning_app.tasks.semantic.summary import best_validation
from lightning_app.tools.bench_timing import device_name, gflop
from lightning_app.util.errors import InputError

BEST = Path("checkpoints", "best.ckpt")


def measure(run: Path) -> dict[str, Any]:
    """Scores of the best epoch, cost of the network, and speed of the training.

    ``mIoU`` and the like are shares between 0 and 1; ``gflop`` is of the forward pass of one training image, 2 per
    multiply-add; ``images_per_s`` is the median of what the run logged.

    Raises:
        InputError: the training ended before its first validation.
    """
    path = run / BEST
    if not path.is_file():
        raise InputError(f"{path} is not there: the training ended before its first validation. Train longer.")
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    best = best_validation(content)
    assert best is not None
    scores = best.report.as_dict()
    scores.pop("confusion", None)
    task = TASKS[content["config"].get("task", "semantic")].load_from_checkpoint(path)
    model = task.network.eval()
    height, width = getattr(task, "input_size", None) or _image_size(content["config"]["data"])
    accelerator = content["config"]["trainer"]["accelerator"]
    cuda = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    speeds = _logged(run, "train/images_per_s")
    return {
        "figure": task.figure,
        **scores,
        "epoch": best.epoch,
        "steps": 1 + int(max(_logged(run, "step"))),
        "checkpoint": BEST.as_posix(),
        "head_parameters": _count(model.head) if hasattr(model, "head") else _count(model) - _count(model.backbone),
        "parameters": _count(model),
        "image_size": [height, width],
        "gflop": gflop(model, torch.rand(1, 3, height, width)),
        "images_per_s": statistics.median(speeds) if speeds else None,
        "device": device_name("cuda" if cuda else "cpu"),
        "device_memory_mb": max(_logged(run, "train/peak_memory_mb"), default=None) if cuda else None,
    }


def _count(module: torch.nn.Module) -> int:
    """Parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _image_size(data: dict[str, Any]) -> tuple[int, int]:
    """Height and width of a training image."""
    arguments = specs.given(data)
    if size := arguments.get("crop_size") or arguments.get("image_size"):
        return size[0], size[1]
    module, _, name = data["class_path"].rpartition(".")
    datamodule = getattr(importlib.import_module(module), name)(**arguments)
    height, width = datamodule.dataset("train")[0]["image"].shape[-2:]
    return height, width


def _logged(run: Path, column: str) -> list[float]:
    """All that the run wrote under ``column`` with the CSV logger, those parts included that it resumed."""
    values: list[float] = []
    for path in run.glob("csv/version_*/metrics.csv"):
        with path.open() as file:
            values += [float(row[column]) for row in csv.DictReader(file) if row.get(column)]
    return values


if __name__ == "__main__":
    try:
        import_named()
        print(json.dumps(measure(Path(sys.argv[1]))))
    except InputError as error:
        sys.exit(str(error))
