"""Scores as people read them, and as files."""

import json
import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich import box
from rich.console import Console
from rich.table import Table

from lightning_app.tasks.semantic.metrics import Scores
from lightning_app.util.files import replacing

COLUMNS = ("IoU", "Acc", "pixels")  # of each class; the last is its share of the labelled ones


class ClassTable(Callback):
    """Print IoU, Acc and share of pixels of each class: the set's after validate and test, the best epoch's after fit.

    After validate and test the scores also go to ``validate.json`` or ``test.json`` in the run's folder.
    """

    def __init__(self) -> None:
        self._best: tuple[int, Scores] | None = None  # epoch (from 1) and its scores

    def state_dict(self) -> dict[str, Any]:
        return {} if self._best is None else {"epoch": self._best[0], "scores": self._best[1]._asdict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self._best = state_dict["epoch"], Scores(**state_dict["scores"])

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, "validate")
        elif not trainer.sanity_checking:
            scores: Scores = pl_module.scores
            if self._best is None or scores.miou > self._best[1].miou:
                self._best = trainer.current_epoch + 1, scores

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._report(trainer, pl_module, "test")

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self._best is None or not trainer.is_global_zero:
            return
        epoch, scores = self._best
        print_scores(scores, pl_module.class_names, trainer.world_size, title=f"Best validation: epoch {epoch}")
        if scores is not pl_module.scores and pl_module.scores is not None:
            print(f"Last validation: mIoU {100 * pl_module.scores.miou:.1f}")

    def _report(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if trainer.is_global_zero:
            print_scores(pl_module.scores, pl_module.class_names, trainer.world_size)
            splits = getattr(trainer.datamodule, "splits", {})  # type: ignore[attr-defined]
            content = {
                "checkpoint": trainer.ckpt_path,
                "split": splits.get("val" if stage == "validate" else stage),
                **scores_as_dict(pl_module.scores, pl_module.class_names),
            }
            with replacing(Path(trainer.default_root_dir) / f"{stage}.json") as path:
                path.write_text(json.dumps(content, indent=1))


def print_scores(scores: Scores, class_names: list[str], devices: int = 1, title: str | None = None) -> None:
    """The table of classes and the line that sums it up; aligned text without frames where stdout is no terminal."""
    console = Console(markup=False, emoji=False, highlight=False)  # class names are no markup
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD if console.is_terminal else None)
    table.add_column("class", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for row in scores_as_dict(scores, class_names)["classes"]:
        table.add_row(row["name"], *("-" if row[key] is None else f"{100 * row[key]:.1f}" for key in COLUMNS))
    console.print(table)
    over = f" over {devices} devices" if devices > 1 else ""
    present = int(scores.iou.isfinite().sum())
    console.print(
        f"{scores.images} images, each counted once{over}. Pixels ignored: {100 * scores.ignored:.1f} %. "
        f"mIoU {100 * scores.miou:.1f} over {present} classes.",
        soft_wrap=True,
    )


def scores_as_dict(scores: Scores, class_names: list[str]) -> dict[str, Any]:
    """All of the scores as JSON can hold them: shares between 0 and 1, null for nan."""
    shares = scores.confusion.sum(1) / scores.confusion.sum()
    rows = zip(class_names, scores.iou.tolist(), scores.acc.tolist(), shares.tolist(), strict=True)
    return {
        "images": scores.images,
        "ignored": _number(scores.ignored),
        **{name: _number(value) for name, value in scores.summary().items()},
        "classes": [{"name": name, **dict(zip(COLUMNS, map(_number, row), strict=True))} for name, *row in rows],
        "confusion": scores.confusion.tolist(),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
