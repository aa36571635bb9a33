"""Predictions as pictures on disk."""

# mypy: disable-error-code="override"
# Lightning's callbacks take any module; ours meet tasks alone.

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from lightning.pytorch import Callback, Trainer

from lightning_app.data.base import Batch
from lightning_app.tasks.base import AnyTask
from lightning_app.util.errors import InputError


class PredictionWriter(Callback):
    """Write what the task draws of each image: of a segmentation its class numbers as a PNG, and an overlay.

    ``street/001.jpg`` gives ``street/001.png`` and ``street/001_overlay.jpg``.

    Args:
        folder: where to; ``predictions`` in the run's folder by default.

    Raises:
        InputError: two images whose predictions would have the same name.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._sources: dict[Path, str] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: AnyTask) -> None:
        self._sources = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: AnyTask,
        outputs: Sequence[Any],
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for drawing in pl_module.draw(batch, outputs):
            drawing.save(self._target(trainer, drawing.name))

    def on_predict_end(self, trainer: Trainer, pl_module: AnyTask) -> None:
        if trainer.is_global_zero:
            print(f"Predictions: {self._folder(trainer)}", flush=True)

    def _folder(self, trainer: Trainer) -> Path:
        return self.folder or Path(trainer.default_root_dir) / "predictions"

    def _target(self, trainer: Trainer, name: str) -> Path:
        """The PNG of the image called ``name``, below the folder even where the name points out of it."""
        path = PurePath(name)
        parts = [part for part in path.with_suffix(".png").parts if part not in (path.anchor, "..")]
        target = self._folder(trainer).joinpath(*parts)
        other = self._sources.setdefault(target, name)
        if other != name:
            raise InputError(f"{other} and {name} would both be predicted to {target}: rename one of them")
        return target
