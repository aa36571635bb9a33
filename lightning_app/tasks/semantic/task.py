"""Training and evaluation of a segmentor: steps, optimiser groups, schedules, scores."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from lightning_app.backbones.base import Backbone
from lightning_app.backbones.freeze import freeze_parts
from lightning_app.heads.base import ContextHead
from lightning_app.heads.fcn import FCN
from lightning_app.reading import checkpoints, specs
from lightning_app.tasks.semantic.inference import EvaluationProtocol, predict
from lightning_app.tasks.semantic.losses import (
    CrossEntropy,
    Presence,
    balanced_weights,
    build_loss,
    log_frequency_weights,
)
from lightning_app.tasks.semantic.metrics import Scores, SegmentationMetrics
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.described import Described
from lightning_app.util.errors import InputError
from lightning_app.weights.load import load
from lightning_app.weights.parts import PARTS, new_segmentor
from lightning_app.weights.transfer import transfer

FROM_DATA = ("num_classes", "ignore_index", "class_names", "palette")  # arguments of the task that its data give
WEIGHTINGS = {"balanced": balanced_weights, "log_frequency": log_frequency_weights}


class SegmentationTask(LightningModule):
    """Train and evaluate a backbone with a context head.

    Batches are dictionaries: image (B, 3, H, W) in 0..1, mask (B, H, W) of class numbers, name (file names), size (H
    and W of each label, or of the original image where there is none).

    Args:
        backbone: where features come from.
        head: the context head, called with the levels' widths and the number of classes; null is FCN.
        auxiliary: a second head for an auxiliary loss; null for none.
        num_classes: comes from the data on the command line, as the next three do.
        ignore_index: label of pixels that do not count.
        class_names: for tables and figures.
        palette: RGB of each class, for pictures.
        freeze: what of the backbone stays as it is, batch statistics and all: backbone, or some of its parts, such as
            [conv_stem, bn1, blocks.0]; null is nothing.
        weights: where fit starts from, unless it resumes: an id of the zoo or a file; all layers that fit are loaded.
        weights_part: which layers of them: all, or the backbone's alone, so that the head begins anew.
        weights_force: start from them even where under half of the tensors fit.
        loss: weight of each loss: cross_entropy, ohem, dice, focal, jaccard, lovasz, tversky.
        class_weights: one number per class, or balanced / log_frequency by the training masks; for CE and OHEM.
        ohem_threshold: probability under which a pixel is hard; null keeps ohem_min_kept pixels whatever their loss.
        ohem_min_kept: pixels kept per image at least.
        auxiliary_weight: weight of the auxiliary head's loss.
        optimizer: sgd (momentum 0.9) or adamw.
        lr: learning rate of the head, at its peak.
        backbone_lr: the backbone's learning rate as a multiple of lr.
        weight_decay: on all weights, or on all but norms and biases with decay_norms false.
        decay_norms: whether norms and biases decay too.
        schedule: poly, onecycle or constant, by step.
        warmup_steps: linear warm-up; null is none for poly and 30 % of the run for onecycle.
        poly_power: exponent of the poly schedule.
        min_lr: where poly ends, as a multiple of lr.
        protocol: how images are evaluated: whole or slide, scales, flip.
        channels_last: keep weights and features in the channels-last memory format.
        compile: compile backbone and head.
    """

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
        freeze: list[str] | str | None = None,
        weights: str | None = None,
        weights_part: Literal["all", "backbone"] = "all",
        weights_force: bool = False,
        loss: dict[str, float] | None = None,
        class_weights: list[float] | Literal["balanced", "log_frequency"] | None = None,
        ohem_threshold: float | None = 0.7,
        ohem_min_kept: int = 100_000,
        auxiliary_weight: float = 0.4,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        lr: float = 0.01,
        backbone_lr: float = 1.0,
        weight_decay: float = 5e-4,
        decay_norms: bool = True,
        schedule: Literal["poly", "onecycle", "constant"] = "poly",
        warmup_steps: int | None = None,
        poly_power: float = 0.9,
        min_lr: float = 0.0,
        protocol: EvaluationProtocol = EvaluationProtocol(),
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        # The command line leaves configurations here, which rebuild the task; objects made in Python cannot be saved.
        self.save_hyperparameters(ignore=[name for name, value in self.hparams.items() if _is_object(value)])
        self.class_names = class_names or [str(number) for number in range(num_classes)]
        self.palette = palette
        self.protocol = protocol

        self.segmentor = Segmentor(
            backbone,
            _build(head or FCN, backbone, num_classes),
            _build(auxiliary, backbone, num_classes) if auxiliary else None,
            auxiliary_weight=auxiliary_weight,
            channels_last=channels_last,
        )
        self.frozen = freeze_parts(backbone, [freeze] if isinstance(freeze, str) else freeze or [])
        if compile:  # in place, so the names in checkpoints stay the same
            self.segmentor.backbone.compile()
            self.segmentor.head.compile()

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
        self.scores: Scores | None = None
        self.restored = False  # from a checkpoint
        self.resuming = False  # until the first step from there

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for what is frozen: its batch statistics, dropout and stochastic depth are at rest."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def setup(self, stage: str) -> None:
        """Weigh the classes by the training masks, where asked."""
        if stage != "fit":
            return
        weighting = self.hparams["class_weights"]
        if isinstance(weighting, str):
            counts = torch.tensor(self.trainer.datamodule.class_statistics())  # type: ignore[attr-defined]
            for loss in self.loss.losses.values():
                if isinstance(loss, CrossEntropy) and loss.class_weights is not None:
                    loss.class_weights.copy_(WEIGHTINGS[weighting](counts))

    def on_fit_start(self) -> None:
        """Load the weights to start from, unless a checkpoint has been loaded."""
        h = self.hparams
        if h["weights"] and not self.restored:
            source = load(h["weights"], device=self.device)
            part = None if h["weights_part"] == "all" else h["weights_part"]
            line = transfer(source, self.segmentor, h["num_classes"], part=part, force=h["weights_force"])
            rank_zero_only(print)(line)

    def on_train_start(self) -> None:
        """Log once an epoch at least."""
        trainer = self.trainer
        steps = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
        trainer.log_every_n_steps = int(min(trainer.log_every_n_steps, steps))  # type: ignore[attr-defined]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.segmentor(images)
        return logits

    def training_step(self, batch: dict[str, Any]) -> Tensor:
        logits, auxiliary = self.segmentor.outputs(batch["image"])
        loss: Tensor = self.loss(logits, batch["mask"])
        for side, weight in auxiliary:
            criterion = self.presence_loss if side.dim() == 2 else self.loss
            loss = loss + weight * criterion(side, batch["mask"])
        if not torch.isfinite(loss):
            raise InputError(
                f"The loss is {loss.item()} at step {self.global_step}, batch {', '.join(batch['name'])}: "
                "look at these files, lower model.lr, or train with trainer.precision 32-true"
            )
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.resuming = False

    def validation_step(self, batch: dict[str, Any]) -> None:
        logits = self.predict_logits(batch)
        self.val_metrics.update(logits.argmax(1), batch["mask"])
        loss = self.loss(logits, batch["mask"])
        self.log("val/loss", loss, sync_dist=True, batch_size=len(logits))

    def on_validation_epoch_end(self) -> None:
        self._report("val", self.val_metrics)

    def test_step(self, batch: dict[str, Any]) -> None:
        self.test_metrics.update(self.predict_logits(batch).argmax(1), batch["mask"])

    def on_test_epoch_end(self) -> None:
        self._report("test", self.test_metrics)

    def predict_step(self, batch: dict[str, Any]) -> Tensor:
        """Class numbers (B, H, W) at the images' original size."""
        return self.predict_logits(batch).argmax(1)

    def predict_logits(self, batch: dict[str, Any]) -> Tensor:
        """Logits by the evaluation protocol, at the label's size."""
        return predict(self, batch["image"], batch["size"][0], self.protocol)

    def _report(self, stage: str, metrics: SegmentationMetrics) -> None:
        self.scores = scores = metrics.compute()
        metrics.reset()
        self.log_dict({f"{stage}/{name}": value for name, value in scores.summary().items()}, prog_bar=stage == "val")
        self.log(f"{stage}/images", float(scores.images))
        for name, iou, acc in zip(self.class_names, scores.iou, scores.acc, strict=True):
            self.log_dict({f"{stage}/IoU/{name}": iou, f"{stage}/Acc/{name}": acc})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self._optimizer()
        scheduler = self._scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _optimizer(self) -> Optimizer:
        h = self.hparams
        backbone = {id(parameter) for parameter in self.segmentor.backbone.parameters()}
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for parameter in self.segmentor.parameters():
            if parameter.requires_grad:
                decays = h["decay_norms"] or parameter.dim() > 1
                groups.setdefault((id(parameter) in backbone, decays), []).append(parameter)
        options = [
            {
                "params": parameters,
                "lr": h["lr"] * (h["backbone_lr"] if in_backbone else 1),
                "weight_decay": h["weight_decay"] if decays else 0.0,
                "name": ("backbone" if in_backbone else "head") + ("" if decays else "_no_decay"),
            }
            for (in_backbone, decays), parameters in groups.items()
        ]
        return AdamW(options) if h["optimizer"] == "adamw" else SGD(options, momentum=0.9)

    def _scheduler(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        h = self.hparams
        if h["schedule"] == "onecycle":
            warmup = 0.3 if h["warmup_steps"] is None else h["warmup_steps"] / steps
            peaks = [group["lr"] for group in optimizer.param_groups]
            return OneCycleLR(optimizer, peaks, total_steps=steps, pct_start=min(warmup, 1.0))
        warmup = h["warmup_steps"] or 0

        def factor(step: int) -> float:
            if step < warmup:
                return float((step + 1) / (warmup + 1))
            if h["schedule"] == "constant":
                return 1.0
            left = max(0.0, 1 - (step - warmup) / max(1, steps - warmup))
            return float(h["min_lr"] + (1 - h["min_lr"]) * left ** h["poly_power"])

        return LambdaLR(optimizer, factor)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say how to make this task again, in the words of the command line, whose runs say it themselves."""
        if "config" in checkpoint:
            return
        try:
            checkpoint["config"] = self._configuration()
        except InputError as error:  # training goes on; whoever wants to load it hears why not
            checkpoint["undescribed"] = str(error)

    def _configuration(self) -> dict[str, Any]:
        network, trainer = self.segmentor, self.trainer
        auxiliary = network.auxiliary
        data: Any = getattr(trainer, "datamodule", None)
        return {
            "seed_everything": int(os.environ.get("PL_GLOBAL_SEED", 0)),
            "model": {name: value for name, value in self.hparams.items() if name not in FROM_DATA}
            | {
                "backbone": network.backbone.description(),
                "head": network.head.description(skip=2),  # the levels' widths and the number of classes
                "auxiliary": auxiliary.description(skip=2) if auxiliary is not None else None,
                "protocol": asdict(self.protocol),
            },
            "data": data.description() if isinstance(data, Described) else None,
            "trainer": {
                "max_epochs": trainer.max_epochs,
                "devices": trainer.num_devices,
                "num_nodes": trainer.num_nodes,
                "accumulate_grad_batches": trainer.accumulate_grad_batches,
            },
        }

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: Any = None, **options: Any
    ) -> Self:
        """The task in a checkpoint of ``contextzoo fit`` or of a trainer, without what would train it on.

        Lightning's own method calls a function that the file names; here a file names no more than known classes.

        Args:
            options: arguments that win over the checkpoint's.

        Raises:
            InputError: not such a checkpoint.
        """
        path = Path(checkpoint_path)
        content = checkpoints.read(path)
        given, facts = content["config"].get("model"), content["hyper_parameters"]
        if not isinstance(given, dict) or type(facts.get("num_classes")) is not int:
            raise InputError(f"{path} does not say how to rebuild its model: contextzoo fit did not write it")
        facts = {name: facts[name] for name in FROM_DATA if facts.get(name) is not None}
        settings = {name: value for name, value in given.items() if name not in PARTS} | facts
        specs.check_plain(settings, f"{path}: its model")
        settings = specs.fit(settings, specs.parameters(cls), f"{path}: its model")
        if isinstance(settings.get("protocol"), dict):
            settings["protocol"] = specs.make(
                lambda: EvaluationProtocol(**settings["protocol"]), f"{path}: its protocol"
            )
        sizes = [tensor.numel() for tensor in content["state_dict"].values()]
        with specs.at_most(sizes, f"{path}: its model"):
            made = new_segmentor({part: given.get(part) for part in PARTS}, facts["num_classes"], str(path))
        extra = made.auxiliary
        parts = {
            "head": lambda in_channels, num_classes: made.head,
            "auxiliary": extra and (lambda in_channels, num_classes: extra),
        }
        task = cls(made.backbone, **{**parts, **settings, **options})
        try:
            task.load_state_dict(content["state_dict"])
        except RuntimeError as error:
            raise InputError(f"{path}: its weights do not fit its model: {specs.shown(str(error))}") from error
        return task if map_location is None else task.to(map_location)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let learning rates, weight decay and length given now win over the checkpoint's optimiser and schedule.

        Raises:
            InputError: what is given now makes other groups of parameters, or another optimiser; or callbacks remember
                what is no file of a run.
        """
        self.restored = True
        checkpoints.check_states(checkpoint.get("callbacks"), self.trainer.ckpt_path or "The checkpoint")
        if self.trainer.state.fn != "fit" or not checkpoint.get("optimizer_states"):
            return
        self.resuming = True
        before = checkpoint["hyper_parameters"]
        for fixed in ("optimizer", "decay_norms", "schedule", "freeze"):
            if before.get(fixed) != self.hparams[fixed]:
                raise InputError(
                    f"model.{fixed} {before.get(fixed)} -> {self.hparams[fixed]}: a resumed run keeps it; "
                    "start a new one from the weights with --model.weights"
                )
        now = {group["name"]: group for group in self._optimizer().param_groups}
        (saved,) = checkpoint["optimizer_states"]
        (schedule,) = checkpoint["lr_schedulers"]
        for length in ("total_steps", "_schedule_phases"):  # of onecycle; without them it keeps those of now
            schedule.pop(length, None)
        for index, group in enumerate(saved["param_groups"]):
            peak_before = before["lr"] * (before["backbone_lr"] if group["name"].startswith("backbone") else 1)
            change = now[group["name"]]["lr"] / peak_before if peak_before else 1.0
            group["weight_decay"] = now[group["name"]]["weight_decay"]
            for rate in ("lr", "initial_lr", "max_lr", "min_lr"):
                if rate in group:
                    group[rate] *= change
            for rates in ("base_lrs", "_last_lr"):
                schedule[rates][index] *= change


def _build(head: Callable[[list[int], int], ContextHead], backbone: Backbone, num_classes: int) -> ContextHead:
    try:
        return head(backbone.channels, num_classes)
    except IndexError as error:
        count = len(backbone.channels)
        raise InputError(
            f"A head asks for a level that is not among the backbone's {count}: 0 to {count - 1}"
        ) from error


def _is_object(value: object) -> bool:
    return isinstance(value, nn.Module | EvaluationProtocol) or callable(value)
