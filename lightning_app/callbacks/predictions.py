"""Predictions as pictures on disk."""

from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from numpy.typing import NDArray
from PIL import Image

from lightning_app.data.facts import default_palette
from lightning_app.errors import InputError
from lightning_app.files import replacing


class PredictionWriter(Callback):
    """Write each image's class numbers as a PNG with the palette, and an overlay JPEG beside it.

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
        colours = pl_module.palette or default_palette(256)
        for name, classes, image in zip(batch["name"], outputs, batch["image"], strict=True):
            ids = classes.to("cpu", torch.uint8).numpy()
            picture = Image.fromarray((image.permute(1, 2, 0) * 255).round().to("cpu", torch.uint8).numpy())
            self._write(self._target(trainer, name), ids, picture, np.array(colours, dtype=np.uint8))

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

    def _write(self, target: Path, ids: NDArray[np.uint8], picture: Image.Image, colours: NDArray[np.uint8]) -> None:
        mask = Image.fromarray(ids)
        mask.putpalette(colours.tobytes())  # also makes it a palette image, whose pixels stay class numbers
        overlay = Image.blend(picture.resize(mask.size, Image.Resampling.BILINEAR), mask.convert("RGB"), 0.5)
        with replacing(target) as path:
            mask.save(path, "PNG")
        with replacing(target.with_name(f"{target.stem}_overlay.jpg")) as path:
            overlay.save(path, "JPEG", quality=90)
