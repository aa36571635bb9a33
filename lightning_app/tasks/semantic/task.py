"""Semantic segmentation: a class for every pixel."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_app.backbones.base import Backbone
from lightning_app.data.facts import default_palette
from lightning_app.data.semantic.base import SegmentationDataModule, SemanticBatch
from lightning_app.data.semantic.class_weights import balanced_weights, log_frequency_weights
from lightning_app.heads.base import ContextHead
from lightning_app.heads.fcn import FCN
from lightning_app.registry import TASKS
from lightning_app.tasks.base import Drawing, Evaluation, Part, Report, Stage, Task
from lightning_app.tasks.network import head_on
from lightning_app.tasks.semantic.infer import SemanticInfer
from lightning_app.tasks.semantic.inference import predict
from lightning_app.tasks.semantic.losses import (
    CrossEntropy,
    Presence,
    build_loss,
)
from lightning_app.tasks.semantic.metrics import SegmentationMetrics
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.tasks.semantic.protocol import EvaluationProtocol
from lightning_app.tasks.semantic.segmentation import IGNORED, SegmentationDrawing
from lightning_app.tasks.semantic.summary import best_validation, report_of
from lightning_app.tasks.semantic.weights import SemanticFacts
from lightning_app.util.errors import InputError
from lightning_app.weights.parts import GIVEN, HEAD, PARTS

WEIGHTINGS = {"balanced": balanced_weights, "log_frequency": log_frequency_weights}


@TASKS.register("semantic")
class SegmentationTask(Task[Segmentor, SemanticBatch]):
    """Train and evaluate a backbone with a context head.

    Args:
        backbone: where features come from.
        head: the context head, called with the levels' widths and the number of classes; null is FCN.
        auxiliary: a second head for an auxiliary loss, ``Several`` for more than one; null for none.
        num_classes: comes from the data on the command line, as the next three do.
        ignore_index: label of pixels that do not count.
        class_names: for tables and figures.
        palette: RGB of each class, for pictures.
        loss: weight of each loss: cross_entropy, ohem, dice, focal, jaccard, lovasz, tversky.
        class_weights: one number per class, or balanced / log_frequency by the training masks; for CE and OHEM.
        ohem_threshold: probability under which a pixel is hard; null keeps ohem_min_kept pixels whatever their loss.
        ohem_min_kept: pixels kept per image at least.
        auxiliary_weight: weight of the auxiliary head's loss.
        protocol: how images are evaluated: whole or slide, scales, flip; its align_corners is always the head's.
    """

    monitor = "val/mIoU"
    mode = "max"
    data = SegmentationDataModule
    from_data = ("num_classes", "ignore_index", "class_names", "palette")
    parts: ClassVar[Mapping[str, Part]] = {
        part: Part(base, GIVEN if part in HEAD else ()) for part, base in PARTS.items()
    }
    evaluated = ("protocol", "channels_last", "compile")
    facts = SemanticFacts
    infer = SemanticInfer

    def __init__(
        self,
        backbone: Backbone,
        head: Callable[[list[int], int], ContextHead] | None = None,
        auxiliary: Callable[[list[int], int], ContextHead] | None = None,
        *,
        num_classes: int = 2,
        ignore_index: int = 255,
        class_names: list[str] | None = None,
        palette: list[tuple[int, int, int]] | None = None,
        loss: dict[str, float] | None = None,
        class_weights: list[float] | Literal["balanced", "log_frequency"] | None = None,
        ohem_threshold: float | None = 0.7,
        ohem_min_kept: int = 100_000,
        auxiliary_weight: float = 0.4,
        protocol: EvaluationProtocol = EvaluationProtocol(),
        channels_last: bool = False,
        **options: Any,
    ) -> None:
        network = Segmentor(
            backbone,
            head_on(backbone, head or FCN, num_classes),
            head_on(backbone, auxiliary, num_classes) if auxiliary else None,
            auxiliary_weight=auxiliary_weight,
            channels_last=channels_last,
        )
        super().__init__(network, channels_last=channels_last, **options)
        self.class_names = class_names or [str(number) for number in range(num_classes)]
        self.palette = palette
        self.ignore_index = ignore_index
        self.protocol = replace(protocol, align_corners=network.head.align_corners)  # one for the whole network

        per_class = torch.tensor(class_weights) if isinstance(class_weights, list) else None
        self.loss = build_loss(
            loss or {"cross_entropy": 1.0},
            num_classes=num_classes,
            ignore_index=ignore_index,
            class_weights=torch.ones(num_classes) if isinstance(class_weights, str) else per_class,
            ohem_threshold=ohem_threshold,
            ohem_min_kept=ohem_min_kept,
        )
        self.presence_loss = Presence(ignore_index=ignore_index)
        self.val_metrics = SegmentationMetrics(num_classes, ignore_index)
        self.test_metrics = SegmentationMetrics(num_classes, ignore_index)

    def setup(self, stage: str) -> None:
        """Weigh the classes by the training masks, where asked."""
        weighting = self.hparams.get("class_weights")
        if stage == "fit" and isinstance(weighting, str):
            counts = torch.tensor(self.trainer.datamodule.class_statistics())  # type: ignore[attr-defined]
            for loss in self.loss.losses.values():
                if isinstance(loss, CrossEntropy) and loss.class_weights is not None:
                    loss.class_weights.copy_(WEIGHTINGS[weighting](counts))

    def losses(self, batch: SemanticBatch) -> dict[str, Tensor]:
        logits, auxiliary = self.network.outputs(batch.image)
        terms = self.loss.terms(logits, batch.target)
        criteria = {"pixels": ("auxiliary", self.loss), "presence": ("presence", self.presence_loss)}
        for side in auxiliary:
            name, criterion = criteria[side.loss]
            term = side.weight * criterion(side.logits, batch.target)
            terms[name] = terms[name] + term if name in terms else term
        return terms

    def predict(self, batch: SemanticBatch) -> list[Tensor]:
        """Class numbers (H, W) of each image by the evaluation protocol, at its label's size."""
        return [classes for part in batch.of_one_size() for classes in self._logits(part).argmax(1)]

    def validation_step(self, batch: SemanticBatch) -> list[Tensor]:  # type: ignore[override]
        """As Task's, with the loss of what is predicted besides."""
        predictions: list[Tensor] = []
        for part in batch.of_one_size():
            logits = self._logits(part)
            self.log("val/loss", self.loss(logits, part.target), sync_dist=True, batch_size=len(part))
            predictions += logits.argmax(1)
        self.update("val", batch, predictions)
        return predictions

    def update(self, stage: Stage, batch: SemanticBatch, predictions: Sequence[Tensor]) -> None:
        metrics = self.val_metrics if stage == "val" else self.test_metrics
        place = 0
        for part in batch.of_one_size():
            metrics.update(torch.stack(list(predictions[place : place + len(part)])), part.target)
            place += len(part)

    def report(self, stage: Stage) -> Report:
        metrics = self.val_metrics if stage == "val" else self.test_metrics
        return report_of(metrics.compute(), self.class_names, self.trainer.world_size)

    def draw(self, batch: SemanticBatch, predictions: Sequence[Tensor]) -> list[Drawing]:
        palette = self.palette or default_palette(len(self.class_names))
        labels = dict(enumerate(self.class_names)) | {self.ignore_index: IGNORED}
        return [
            SegmentationDrawing.of(part.names[0], part.image[0], classes, part.mask, labels, self.class_names, palette)
            for part, classes in zip(batch.singles(), predictions, strict=True)
        ]

    def _logits(self, batch: SemanticBatch) -> Tensor:
        return predict(self.network, batch.image, batch.sizes[0], self.protocol)

    @classmethod
    def run_name(cls, model: Mapping[str, Any]) -> str:
        head = model.get("head") or {"class_path": "FCN"}
        return str(head["class_path"]).rpartition(".")[2].lower()

    @classmethod
    def facts_of(cls, hyper_parameters: Mapping[str, Any], path: Path) -> dict[str, Any]:
        if type(hyper_parameters.get("num_classes")) is not int:
            raise InputError(f"{path} does not say how to rebuild its model: contextzoo fit did not write it")
        return super().facts_of(hyper_parameters, path)

    def check_data(self, before: Mapping[str, Any], path: Path, data: str) -> None:
        if before["num_classes"] != self.hparams["num_classes"]:
            raise InputError(
                f"{path} knows {before['num_classes']} classes, {data} has {self.hparams['num_classes']}: "
                "give the data it was trained on"
            )

    @classmethod
    def parts_of(cls, weights: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
        """Backbone and head; the auxiliary head and its weight where it stands beside that very head."""
        parts = super().parts_of({"head": None, **weights}, {"auxiliary", *given})
        if not {"head", "auxiliary"} & set(given):
            parts |= {key: weights[key] for key in ("auxiliary", "auxiliary_weight") if key in weights}
        return parts

    @classmethod
    def with_weights(cls, network: Segmentor) -> Evaluation:
        info = network.known
        return Evaluation(
            type("EvaluationTask", (EvaluationTask,), {"pretrained": network}),
            {"protocol": asdict(info.protocol)},
            info.data,
            info.split,
            info.known("mIoU"),
            {"classes": info.classes},
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As Task's; the scores of a run of before reports become its table's report."""
        super().on_load_checkpoint(checkpoint)
        best = best_validation(checkpoint)
        if best is not None:
            checkpoint["callbacks"]["ClassTable"] = best.state()


class EvaluationTask(SegmentationTask):
    """A task that evaluates a network with weights that say what they are.

    The command line makes it of the arguments alone, so the network comes with the class, a new one for each.

    Raises:
        InputError: data of other classes.
    """

    pretrained: ClassVar[Segmentor]

    def __init__(
        self,
        num_classes: int,
        ignore_index: int,
        class_names: list[str],
        palette: list[tuple[int, int, int]],
        protocol: EvaluationProtocol = EvaluationProtocol(),
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        network, info = self.pretrained, self.pretrained.known
        if num_classes != len(info.classes):
            raise InputError(
                f"{info.name} knows {len(info.classes)} classes, the data has {num_classes}: "
                "give the data it was trained on"
            )
        if tuple(class_names) != info.classes:
            rank_zero_only(print)(f"Compared by number: {info.name} calls its classes {', '.join(info.classes)}")
        super().__init__(
            network.backbone,
            _given(network.head),
            None if network.auxiliary is None else _given(network.auxiliary),
            num_classes=num_classes,
            ignore_index=ignore_index,
            class_names=list(info.classes),
            palette=list(info.palette),
            protocol=protocol,
            channels_last=channels_last,
            compile=compile,
        )


def _given(head: ContextHead) -> Callable[[list[int], int], ContextHead]:
    """What builds a head, where it is built."""
    return lambda in_channels, num_classes: head
