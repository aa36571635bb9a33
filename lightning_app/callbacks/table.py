"""A report as people read it, and as a file."""

# mypy: disable-error-code="override"
# Lightning's callbacks take any module; ours meet tasks alone.

import json
import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console

from lightning_app.tasks.base import AnyTask, Report
from lightning_app.tasks.report import Best
from lightning_app.util.files import replacing
from lightning_app.util.tables import print_table


class ClassTable(Callback):
    """Print the task's report: the set's after validate and test, the best epoch's after fit.

    After validate and test it also goes to ``validate.json`` or ``test.json`` in the run's folder.
    """

    def __init__(self) -> None:
        self._best: Best | None = None

    def state_dict(self) -> dict[str, Any]:
        return {} if self._best is None else self._best.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self._best = Best.from_state(state_dict)

    def on_validation_end(self, trainer: Trainer, pl_module: AnyTask) -> None:
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module.reports["val"], "validate")
        elif not trainer.sanity_checking:
            report = pl_module.reports["val"]
            if self._best is None or pl_module.is_better(report, self._best.report):
                self._best = Best(trainer.current_epoch + 1, report)

    def on_test_end(self, trainer: Trainer, pl_module: AnyTask) -> None:
        self._report(trainer, pl_module.reports["test"], "test")

    def on_fit_end(self, trainer: Trainer, pl_module: AnyTask) -> None:
        if self._best is None or not trainer.is_global_zero:
            return
        print_report(self._best.report, title=f"Best validation: epoch {self._best.epoch}")
        last = pl_module.reports.get("val")
        if last is not None and last is not self._best.report:
            figure = pl_module.figure
            print(f"Last validation: {figure} {100 * last.figures[figure]:.1f}")

    def _report(self, trainer: Trainer, report: Report, stage: str) -> None:
        if trainer.is_global_zero:
            print_report(report)
            splits = getattr(trainer.datamodule, "splits", {})  # type: ignore[attr-defined]
            content = {
                "checkpoint": trainer.ckpt_path,
                "split": splits.get("val" if stage == "validate" else stage),
                **report.as_dict(),
            }
            with replacing(Path(trainer.default_root_dir) / f"{stage}.json") as path:
                path.write_text(json.dumps(content, indent=1))


def print_report(report: Report, title: str | None = None) -> None:
    """The table and the line that sums it up; aligned text without frames where stdout is no terminal."""
    console = Console(markup=False, emoji=False, highlight=False)  # names are no markup
    if title:  # which a narrow table would break
        console.print(title, style="italic", soft_wrap=True)
    if report.columns:
        rows = [[row[0], *map(_cell, row[1:])] for row in report.rows]
        print_table(report.columns, rows, right=report.columns[1:])
    console.print(report.summary, soft_wrap=True)


def _cell(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"
