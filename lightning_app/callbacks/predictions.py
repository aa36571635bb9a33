"""Predictions as pictures on disk."""

# mypy: disable-error-code="override"
# Lightning's callbacks take any module; ours meet tasks alone.

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Callback, Trainer

from lightning_app.data.base import Batch
from lightning_app.tasks.base import AnyTask
from lightning_app.util.errors import InputError
from lightning_app.util.files import replacing


class PredictionWriter(Callback):
    """Write what the task draws of each image: of a segmentation its class numbers as a PNG, and an overlay.

    ``street/001.jpg`` gives ``street/001.png`` and ``street/001_overlay.jpg``. What the task calls results goes
    together into ``predictions.json``, such as objects in COCO's words.

    Args:
        folder: where to; ``predictions`` in the run's folder by default.

    Raises:
        InputError: two images whose predictions would have the same name.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._sources: dict[Path, str] = {}
        self._results: dict[str, Sequence[Mapping[str, Any]]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: AnyTask) -> None:
        self._sources, self._results = {}, {}

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
            self._results[drawing.name] = drawing.results

    def on_predict_end(self, trainer: Trainer, pl_module: AnyTask) -> None:
        results = gathered(self._results)
        if trainer.is_global_zero:
            found = [result for name in sorted(results) for result in results[name]]
            if found:
                with replacing(self._folder(trainer) / "predictions.json") as path:
                    path.write_text(json.dumps(found, default=_text))
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


def gathered(parts: dict[str, Any]) -> dict[str, Any]:
    """What all devices have, by name."""
    if not (dist.is_available() and dist.is_initialized()):
        return parts
    of_devices: list[dict[str, Any]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(of_devices, parts)
    return {name: part for each in of_devices for name, part in each.items()}


def _text(value: object) -> str:
    """The runs of a mask, which are letters."""
    if isinstance(value, bytes):
        return value.decode("ascii")
    raise TypeError(f"{value!r} has no place in JSON")
