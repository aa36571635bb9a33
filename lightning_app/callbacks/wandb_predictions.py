"""Weights & Biases: which images are predicted worst, as a table."""

# mypy: disable-error-code="override"
# Lightning's callbacks take any module; ours meet tasks alone.

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import WandbLogger
from numpy.typing import NDArray

from lightning_app.callbacks.predictions import gathered
from lightning_app.callbacks.wandb import small
from lightning_app.data.base import Batch
from lightning_app.tasks.base import AnyTask, Drawing

MOST: Final = 50  # rows


class WandbPredictions(Callback):
    """After test and validate, ``test/predictions`` or ``val/predictions``: the worst images first, each with its own
    scores, the photograph, what was predicted and the truth.

    For tasks whose drawings have scores. The images of all devices are ranked together; the first one logs. Does
    nothing with another logger, and in the validations of a training.

    Args:
        most: rows that are kept, each with a picture.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._worst: list[tuple[float, str, dict[str, Any]]] = []

    def on_validation_start(self, trainer: Trainer, pl_module: AnyTask) -> None:
        self._worst = []

    def on_test_start(self, trainer: Trainer, pl_module: AnyTask) -> None:
        self._worst = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: AnyTask, outputs: Sequence[Any], batch: Batch, *_: Any
    ) -> None:
        if trainer.state.fn == "validate":
            self._look(trainer, pl_module, outputs, batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: AnyTask, outputs: Sequence[Any], batch: Batch, *_: Any
    ) -> None:
        self._look(trainer, pl_module, outputs, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: AnyTask) -> None:
        if trainer.state.fn == "validate":
            self._log(trainer, "val")

    def on_test_end(self, trainer: Trainer, pl_module: AnyTask) -> None:
        self._log(trainer, "test")

    def _look(self, trainer: Trainer, task: AnyTask, outputs: Sequence[Any], batch: Batch) -> None:
        if _logger(trainer) is None:
            return
        for drawing in task.draw(batch, outputs):
            if scores := drawing.scores:
                first = next(iter(scores.values()))
                self._worst.append((first, drawing.name, _row(drawing, scores)))
        self._worst = sorted(self._worst, key=lambda row: row[:2])[: self.most]

    def _log(self, trainer: Trainer, stage: str) -> None:
        logger = _logger(trainer)
        if logger is None:
            return
        found = gathered({name: (score, row) for score, name, row in self._worst})
        self._worst = []
        if not found or not trainer.is_global_zero:
            return
        import wandb

        rows = sorted(found.items(), key=lambda row: (row[1][0], row[0]))[: self.most]
        scores = list(rows[0][1][1]["scores"])
        table = wandb.Table(columns=["image", "prediction", *scores])
        for name, (_, row) in rows:
            labels = [{"id": number, "name": label} for number, label in row["labels"].items()]
            classes = wandb.Classes(labels)  # type: ignore[attr-defined]  # left out of its stubs
            masks = {side: {"mask_data": mask} for side, mask in row["masks"].items()}
            table.add_data(
                name,
                wandb.Image(row["photograph"], masks=masks, classes=classes),
                *(100 * row["scores"][each] for each in scores),
            )
        logger.log_metrics({f"{stage}/predictions": table}, trainer.global_step)


def _row(drawing: Drawing, scores: Mapping[str, float]) -> dict[str, Any]:
    """What the table holds of an image, in plain data, as devices send it."""
    masks: dict[str, NDArray[np.uint8]] = {name: small(mask) for name, mask in drawing.masks.items()}
    return {
        "scores": dict(scores),
        "photograph": small(drawing.photograph),
        "masks": masks,
        "labels": dict(drawing.labels),
    }


def _logger(trainer: Trainer) -> WandbLogger | None:
    """The W&B logger, which every device has."""
    return next((logger for logger in trainer.loggers if isinstance(logger, WandbLogger)), None)
