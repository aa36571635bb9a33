"""Weights & Biases: what a run shows there beyond the metrics that every logger gets."""

# mypy: disable-error-code="override"
# Lightning's callbacks take any module; ours meet tasks alone.

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from numpy.typing import NDArray
from torch.nn import functional as F

from lightning_app.data.base import Batch
from lightning_app.tasks.base import AnyTask, Drawing, Report
from lightning_app.tasks.report import Box
from lightning_app.util.errors import InputError
from lightning_app.util.files import replacing

ID_FILE = "wandb_id"
SAMPLES = 8  # pictures by validation
SIDE = 512  # their longer side at most, in pixels


class WandbRunLogger(WandbLogger):
    """Lightning's logger for a run that is resumed: its id lies in ``wandb_id`` in the run's folder, ``save_dir``.

    The run is called like that folder.

    Args:
        group: of runs that belong together, such as a sweep's.
        job_type: what the run is in its group, such as its head; runs of one type differ in their seed.

    Raises:
        InputError: no login.
    """

    def __init__(
        self,
        save_dir: str = ".",
        project: str = "contextzoo",
        id: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        **kwargs: Any,
    ) -> None:
        known = Path(save_dir) / ID_FILE
        if id is None and known.is_file():
            id = known.read_text().strip()
        kwargs["name"] = kwargs.get("name") or Path(save_dir).name
        place = Path(save_dir).absolute()  # W&B's service would look from the folder that the first run started in
        super().__init__(save_dir=place, project=project, id=id, group=group, job_type=job_type, **kwargs)
        self._wandb_init.pop("anonymous", None)  # of lightning 2.6; wandb 0.31 warns of it even where it is None

    @property
    def experiment(self) -> Any:
        import wandb

        Path(self.save_dir or ".").mkdir(parents=True, exist_ok=True)  # wandb looks from there for the git commit
        try:
            return super().experiment
        except wandb.errors.UsageError as error:  # as without an API key
            raise InputError(f"W&B: {error} Or set WANDB_MODE=offline, or leave -c logger/wandb out.") from error


class WandbReport(Callback):
    """Sample images with masks and boxes, predicted and true, confusion matrices, the best score and the best weights.

    The same images at every validation; the best weights as one artifact at the end of fit. Does nothing with another
    logger, on other ranks and while sanity checking.
    """

    def __init__(self) -> None:
        self._samples: list[tuple[str, NDArray[np.uint8], dict[str, Any], dict[str, Any]]] = []

    def setup(self, trainer: Trainer, pl_module: AnyTask, stage: str) -> None:
        logger = _logger(trainer)
        if logger is None or stage != "fit":
            return
        with replacing(Path(trainer.default_root_dir) / ID_FILE) as path:
            path.write_text(f"{logger.experiment.id}\n")
        if best := _best(trainer):
            logger.experiment.define_metric(
                best.monitor, step_metric="trainer/global_step", step_sync=True, summary=best.mode
            )

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: AnyTask,
        outputs: Sequence[Any],
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if _logger(trainer) is None or trainer.sanity_checking:
            return
        batches = int(trainer.num_val_batches[dataloader_idx])
        if batch_idx not in torch.linspace(0, batches - 1, min(SAMPLES, batches)).round().tolist():
            return
        most = -(-SAMPLES // batches)
        for drawing in pl_module.draw(batch[:most], outputs[:most]):
            masks = {
                name: {"mask_data": small(mask), "class_labels": dict(drawing.labels)}
                for name, mask in drawing.masks.items()
            }
            boxes: dict[str, Any] = {
                name: {"box_data": [_box(box, drawing) for box in found], "class_labels": dict(drawing.labels)}
                for name, found in drawing.boxes.items()
            }
            picture = drawing.photograph if masks or boxes else np.asarray(drawing.overlay())
            self._samples.append((drawing.name, small(picture), masks, boxes))

    def on_validation_end(self, trainer: Trainer, pl_module: AnyTask) -> None:
        logger = _logger(trainer)
        if logger is None or trainer.sanity_checking:
            return
        _log_confusion(logger, "val", pl_module.reports["val"], trainer.global_step)
        if not self._samples:  # a task may draw nothing
            return
        names, images, masks, boxes = zip(*self._samples[:SAMPLES], strict=True)
        self._samples = []
        shown = {kind: list(each) for kind, each in (("masks", masks), ("boxes", boxes)) if any(each)}
        logger.log_image("val/samples", list(images), step=trainer.global_step, caption=list(names), **shown)

    def on_test_end(self, trainer: Trainer, pl_module: AnyTask) -> None:
        if logger := _logger(trainer):
            _log_confusion(logger, "test", pl_module.reports["test"], trainer.global_step)

    def on_fit_end(self, trainer: Trainer, pl_module: AnyTask) -> None:
        logger, best = _logger(trainer), _best(trainer)
        if logger is None or best is None or best.best_model_score is None:
            return
        import wandb

        content = torch.load(best.best_model_path, map_location="meta", weights_only=True, mmap=True)
        metadata = {
            "monitor": best.monitor,
            "score": best.best_model_score.item(),
            "epoch": content["epoch"],
            "step": content["global_step"],
        }
        report = pl_module.reports["val"]
        if report.rows:
            metadata[report.table] = report.names
        artifact = wandb.Artifact(f"model-{logger.experiment.id}", type="model", metadata=metadata)
        artifact.add_file(best.best_model_path, name="best.ckpt")
        logger.experiment.log_artifact(artifact, aliases=["best"])


def _logger(trainer: Trainer) -> WandbLogger | None:
    """The W&B logger, on rank 0."""
    loggers = trainer.loggers if trainer.is_global_zero else []
    return next((logger for logger in loggers if isinstance(logger, WandbLogger)), None)


def _best(trainer: Trainer) -> ModelCheckpoint | None:
    """The checkpoint callback that keeps the best weights."""
    return next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor), None)


def _box(box: Box, drawing: Drawing) -> dict[str, Any]:
    """A box as W&B draws it: corners as shares of the picture, of whatever size that is shown."""
    height, width = drawing.photograph.shape[:2]
    left, top, right, bottom = box.corners
    position = {"minX": left / width, "minY": top / height, "maxX": right / width, "maxY": bottom / height}
    return {
        "position": position,
        "class_id": box.label,
        "box_caption": f"{drawing.labels.get(box.label, box.label)} {box.score:.2f}",
        "scores": {"score": box.score},
    }


def small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photograph (H, W, 3), or a map of numbers (H, W), whose longer side is no more than SIDE."""
    photograph = picture.ndim == 3
    x = torch.from_numpy(picture)
    x = x.permute(2, 0, 1) if photograph else x[None]
    scale = min(1.0, SIDE / max(x.shape[-2:]))
    size = [round(side * scale) or 1 for side in x.shape[-2:]]
    x = F.interpolate(x[None].float(), size, mode="area" if photograph else "nearest")[0].byte()
    small: NDArray[np.uint8] = (x.permute(1, 2, 0) if photograph else x[0]).numpy()
    return small


def _log_confusion(logger: WandbLogger, stage: str, report: Report, step: int) -> None:
    if report.confusion is None:
        return
    import wandb

    names = report.names
    rows = [
        [names[truth], names[prediction], count]
        for truth, counts in enumerate(report.confusion)
        for prediction, count in enumerate(counts)
    ]
    columns = ["Actual", "Predicted", "nPredictions"]
    chart = wandb.plot_table(
        "wandb/confusion_matrix/v1",
        wandb.Table(columns=columns, data=rows),
        dict(zip(columns, columns, strict=True)),
        {"title": f"Confusion, {stage}"},
    )
    logger.log_metrics({f"{stage}/confusion": chart}, step)
