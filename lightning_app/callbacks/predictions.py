"""Predictions as pictures on disk."""

from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image

from lightning_app.data.facts import default_palette
from lightning_app.tasks.semantic.segmentation import Segmentation
from lightning_app.util.errors import InputError


class PredictionWriter(Callback):
    """Write each image's class numbers as a PNG with the palette, and beside it the overlay that ``segment`` draws.

    ``street/001.jpg`` gives ``street/001.png`` and ``street/001_overlay.jpg``.

    Args:
        folder: where to; ``predictions`` in the run's folder by default.

    Raises:
        InputError: two images whose predictions would have the same name.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._sources: dict[Path, str] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._sources = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: torch.Tensor,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        names, palette = pl_module.class_names, pl_module.palette or default_palette(len(pl_module.class_names))
        for name, classes, image in zip(batch["name"], outputs, batch["image"], strict=True):
            ids = classes.to("cpu", torch.uint8).numpy()
            pixels = (image.permute(1, 2, 0) * 255).round().to("cpu", torch.uint8).numpy()
            picture = Image.fromarray(pixels).resize((ids.shape[1], ids.shape[0]), Image.Resampling.BILINEAR)
            seen = Segmentation(np.array(picture), ids, names, palette)
            target = self._target(trainer, name)
            seen.save(target)
            seen.save_overlay(target.with_name(f"{target.stem}_overlay.jpg"))

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
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
