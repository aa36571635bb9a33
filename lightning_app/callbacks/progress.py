"""Where a run stands: a bar on a terminal, lines of text elsewhere."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class Progress(RichProgressBar):
    """A rich bar where stdout is a terminal; elsewhere a line at each epoch's end and now and then in between.

    Args:
        seconds: between two lines in mid-epoch.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        self.plain = not sys.stdout.isatty()
        self.seconds = seconds
        self._last_line = time.monotonic()
        super().__init__(refresh_rate=0 if self.plain else 10)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def _get_train_description(self, current_epoch: int) -> str:  # private in lightning 2.6; it counts from 0 there
        epochs = self.trainer.max_epochs or 0
        text = f"Epoch {current_epoch + 1}" + (f"/{epochs}" if epochs > 0 else "")
        return f"{text:{len(self.validation_description)}}"  # as long as the other bar's

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if batch_idx + 1 == trainer.num_training_batches or self._due():
            self._line(f"step {trainer.global_step}/{trainer.estimated_stepping_batches}", "train/")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._line("validation", "val/")
        elif trainer.state.fn == "validate":
            self._end()

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_validation_batch_end(*args, **kwargs)
        self._evaluation_line("validation", args[4], self.trainer.num_val_batches)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_test_batch_end(*args, **kwargs)
        self._evaluation_line("test", args[4], self.trainer.num_test_batches)

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_predict_batch_end(*args, **kwargs)
        self._evaluation_line("predict", args[4], self.trainer.num_predict_batches)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_test_end(trainer, pl_module)
        self._end()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_predict_end(trainer, pl_module)
        self._end()

    def _end(self) -> None:
        """Draw the bar no more, so that it does not come over what other callbacks print now."""
        if self.progress is not None:
            self.progress.stop()

    def _evaluation_line(self, stage: str, batch_idx: int, batches: Sequence[int | float]) -> None:
        if self._due():
            self._line(f"{stage} {batch_idx + 1}/{batches[0]}")

    def _due(self) -> bool:
        return time.monotonic() - self._last_line >= self.seconds

    def _line(self, text: str, metrics: str | None = None) -> None:
        """Print ``text`` with the epoch in front and, behind it, the metrics that begin with ``metrics``."""
        if not (self.plain and self.trainer.is_global_zero):
            return
        self._last_line = time.monotonic()
        parts = [text]
        if self.trainer.state.fn == "fit":
            epochs = self.trainer.max_epochs or 0
            parts.insert(0, f"epoch {self.trainer.current_epoch + 1}" + (f"/{epochs}" if epochs > 0 else ""))
        if metrics:
            values = self.trainer.progress_bar_metrics
            parts += [f"{name} {value:.4g}" for name, value in values.items() if name.startswith(metrics)]
        print("  ".join(parts), flush=True)
