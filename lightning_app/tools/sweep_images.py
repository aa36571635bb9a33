"""What each validation image says of a training of a sweep, counted once it has ended."""

# mypy: disable-error-code="override"
# Lightning's callbacks take any module; ours meet tasks alone.

import importlib
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer

from lightning_app.backbones.feature_cache import GB, FeatureCache
from lightning_app.backbones.freeze import freeze_parts
from lightning_app.data.semantic.base import SemanticBatch
from lightning_app.reading import specs
from lightning_app.tasks.semantic.task import SegmentationTask
from lightning_app.tools.sweep_counts import FILE, Images
from lightning_app.tools.sweep_result import BEST
from lightning_app.tools.sweep_statistics import Counts
from lightning_app.weights.checkpoint import read_config


class _Counter(Callback):
    """Counts what is validated, image by image."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, list[Counts]]] = []

    def on_validation_batch_end(
        self, trainer: Trainer, task: SegmentationTask, outputs: Sequence[torch.Tensor], batch: SemanticBatch, *_: Any
    ) -> None:
        classes = len(task.class_names)
        for one, prediction in zip(batch.singles(), outputs, strict=True):
            labelled = one.target[0] != task.ignore_index
            truth, predicted = one.target[0][labelled], prediction[labelled]
            counted = (truth, predicted, truth[truth == predicted])
            self.rows.append(
                (one.names[0], [torch.bincount(each, minlength=classes).cpu().numpy() for each in counted])
            )


def count_images(run: Path) -> None:
    """Validate the best epoch of a finished training anew, and leave what each image says in its folder."""
    checkpoint = run / BEST
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    config = read_config(checkpoint)
    task = SegmentationTask.load_from_checkpoint(checkpoint)
    if kept := config["model"].get("feature_cache"):
        freeze_parts(task.backbone, ["backbone"])
        FeatureCache(task.network.backbone, Path(kept), config["model"]["feature_cache_gb"] * GB)
    counter = _Counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            default_root_dir=folder,
            precision=config["trainer"]["precision"] or "32-true",
            accelerator=config["trainer"]["accelerator"],
            devices=1,
            callbacks=[counter],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            use_distributed_sampler=False,
        )
        trainer.validate(task, datamodule=datamodule(config["data"]), verbose=False)
    rows = sorted(counter.rows, key=lambda row: row[0])
    truth, predicted, hits = (np.stack([row[part] for _, row in rows]) for part in range(3))
    Images(tuple(name for name, _ in rows), truth, predicted, hits).write(run / FILE)


def datamodule(data: dict[str, Any]) -> LightningDataModule:
    """The datamodule of a run's configuration."""
    module, _, name = data["class_path"].rpartition(".")
    made: LightningDataModule = getattr(importlib.import_module(module), name)(**specs.given(data))
    return made
