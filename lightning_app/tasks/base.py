"""What every task shares: steps, optimiser groups, schedules and resuming."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, cast

import torch
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_app.backbones.base import Backbone
from lightning_app.backbones.feature_cache import GB, FeatureCache, require_frozen
from lightning_app.backbones.freeze import freeze_parts
from lightning_app.data.base import Batch, DataModule
from lightning_app.reading import checkpoints
from lightning_app.reading.specs import Part
from lightning_app.tasks import optimization
from lightning_app.tasks.evaluation import Evaluation
from lightning_app.tasks.infer import Infer
from lightning_app.tasks.report import Drawing, Report
from lightning_app.util.errors import InputError
from lightning_app.weights.facts import Facts
from lightning_app.weights.load import load
from lightning_app.weights.shared_task import SharedTask
from lightning_app.weights.transfer import transfer

__all__ = ["AnyTask", "Drawing", "Evaluation", "Part", "Report", "Stage", "Task"]

B = TypeVar("B", bound=Batch)
N = TypeVar("N", bound=nn.Module)
Stage = Literal["val", "test"]


class Task(SharedTask, ABC, Generic[N, B]):
    """A network that learns from batches, is judged by a report, and draws what it predicts.

    A class below is registered (``@TASKS.register("x")``), says ``monitor``, ``mode`` and ``data``, gives its network
    to this constructor, and implements ``losses``, ``predict``, ``update``, ``report`` and ``draw``. Its own arguments
    come first; it takes ``**options`` and hands them on to here, where a misspelt one raises. All that the command line
    must know of a task it asks the class; most of the answers are given here.

    Attributes:
        slug: its name in the registry, on the command line and in files.
        monitor: the figure that the best checkpoint is chosen by, such as val/mIoU.
        mode: whether more of it is better (max), or less (min).
        data: what its datamodules are below.
        from_data: arguments of the task that its datamodule gives, by the same names.
        parts: those that are classes with arguments of their own.
        evaluated: those that may be changed where weights are evaluated.
        facts: what only its weights say of themselves; a task without it cannot publish or load any.
        infer: what ``contextzoo infer`` does with photographs; none = it looks at none.
        network: what is trained; it has a ``backbone``.
        reports: the last report of each stage.

    Args:
        freeze: what of the backbone stays as it is, batch statistics and all: backbone, or some of its parts, such as
            [conv_stem, bn1, blocks.0]; null is nothing.
        feature_cache: a folder that keeps what a frozen backbone makes of each image, for this run and all others;
            data.versions says how many versions of a training image there are. null is none.
        feature_cache_gb: what that folder may hold, in 10**9 bytes.
        weights: where fit starts from, unless it resumes: an id of the zoo or a file; all layers that fit are loaded.
        weights_part: which layers of them: all, or the backbone's alone, so that the head begins anew.
        weights_force: start from them even where under half of the tensors fit.
        optimizer: sgd (momentum 0.9) or adamw.
        lr: learning rate of the head, at its peak.
        backbone_lr: the backbone's learning rate as a multiple of lr.
        weight_decay: on all weights, or on all but norms and biases with decay_norms false.
        decay_norms: whether norms and biases decay too.
        schedule: poly, onecycle, constant or steps.
        warmup_steps: linear warm-up; null is none for poly and 30 % of the run for onecycle.
        poly_power: exponent of the poly schedule.
        min_lr: where poly ends, as a multiple of lr.
        milestones: shares of the run after which the rates of steps are a tenth of what they were.
        channels_last: keep weights and features in the channels-last memory format.
        compile: compile backbone and head.
    """

    network: N
    monitor: str
    mode: ClassVar[Literal["max", "min"]] = "max"
    data: ClassVar[type[DataModule]]
    parts: ClassVar[Mapping[str, Part]] = {"backbone": Part(Backbone)}
    evaluated: ClassVar[tuple[str, ...]] = ("channels_last", "compile")
    facts: ClassVar[type[Facts[Any]]]
    infer: ClassVar[type[Infer] | None] = None

    def __init__(
        self,
        network: N,
        *,
        freeze: list[str] | str | None = None,
        feature_cache: str | None = None,
        feature_cache_gb: float = 50.0,
        weights: str | None = None,
        weights_part: Literal["all", "backbone"] = "all",
        weights_force: bool = False,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        lr: float = 0.01,
        backbone_lr: float = 1.0,
        weight_decay: float = 5e-4,
        decay_norms: bool = True,
        schedule: Literal["poly", "onecycle", "constant", "steps"] = "poly",
        warmup_steps: int | None = None,
        poly_power: float = 0.9,
        min_lr: float = 0.0,
        milestones: tuple[float, ...] = (0.8, 0.95),
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        with warnings.catch_warnings():  # Lightning would rather not have the modules that the next line drops
            warnings.filterwarnings("ignore", "Attribute '.*' is an instance of `nn.Module`")
            self.save_hyperparameters(ignore=["network"])
        # The command line leaves configurations here, which rebuild the task; objects made in Python cannot be saved.
        self.save_hyperparameters(ignore=["network", *(k for k, v in self.hparams.items() if not is_plain(v))])
        self.network = network
        self.register_load_state_dict_pre_hook(_named_as_now)  # type: ignore[no-untyped-call]
        self.frozen = freeze_parts(self.backbone, [freeze] if isinstance(freeze, str) else freeze or [])
        if feature_cache is not None:
            require_frozen(self.backbone)
        if channels_last:
            network.to(memory_format=torch.channels_last)
        if compile:  # in place, so the names in checkpoints stay the same
            for part in network.children():
                part.compile()
        self.reports: dict[str, Report] = {}
        self.restored = False  # from a checkpoint
        self.resuming = False  # until the first step from there

    @abstractmethod
    def losses(self, batch: B) -> dict[str, Tensor]:
        """The terms that are minimised, weighted; each is logged by its name where there are more than one."""

    @abstractmethod
    def predict(self, batch: B) -> Sequence[Any]:
        """What a person wants to know of each image."""

    @abstractmethod
    def update(self, stage: Stage, batch: B, predictions: Sequence[Any]) -> None:
        """Count an evaluated batch, with torchmetrics, which begin anew after each report."""

    @abstractmethod
    def report(self, stage: Stage) -> Report:
        """What was counted, over all devices. Called once, at the end of each evaluation."""

    @abstractmethod
    def draw(self, batch: B, predictions: Sequence[Any]) -> list[Drawing]:
        """A picture for each image, with the truth where the batch has it."""

    @classmethod
    def for_data(cls, data: DataModule, *parts: Any, **options: Any) -> Self:
        """A task for what a datamodule has: what the command line would take from there, such as classes and palette.

        Args:
            parts: the task's own first arguments, such as a backbone and a head.
            options: the others.
        """
        make: Any = cls  # whose arguments are a task's own
        made: Self = make(*parts, **{name: getattr(data, name) for name in cls.from_data}, **options)
        return made

    @classmethod
    def parts_of(cls, weights: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
        """Of the model that weights describe, what fit starts with beside the parts that were given."""
        return {part: weights[part] for part in cls.parts if part in weights and part not in given}

    @classmethod
    def with_weights(cls, network: N) -> Evaluation:
        """How ``--weights`` evaluates a network that brings them.

        Raises:
            InputError: the task does not say.
        """
        raise InputError(f"The task {cls.slug} evaluates no published weights: give --ckpt_path")

    @property
    def title(self) -> str:
        """The network in a few words."""
        top = getattr(self.network, "head", self.network)
        return f"{type(top).__name__} on {getattr(self.backbone, 'name', type(self.backbone).__name__)}"

    @property
    def backbone(self) -> nn.Module:
        """The part of the network that learns at its own rate, and that may be frozen."""
        return cast(nn.Module, self.network.backbone)

    @property
    def outputs(self) -> int:
        """How many things the network tells apart, such as classes."""
        return int(self.hparams.get("num_classes", 0))

    @property
    def figure(self) -> str:
        """The monitor's name in a report."""
        return self.monitor.rpartition("/")[2]

    def is_better(self, report: Report, other: Report) -> bool:
        """Whether a report is better than another one by the task's monitor."""
        this, that = report.figures[self.figure], other.figures[self.figure]
        return this > that if self.mode == "max" else this < that

    def forward(self, images: Tensor) -> Any:
        return self.network(images)

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for what is frozen: its batch statistics, dropout and stochastic depth are at rest."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def on_fit_start(self) -> None:
        """Load the weights to start from, unless a checkpoint has been loaded, and open the cache of features."""
        h = self.hparams
        if h["weights"] and not self.restored:
            source = load(h["weights"], device=self.device)
            of_task = h["weights_part"] == "all" and type(source) is type(self.network)
            part = None if of_task else "backbone"  # which networks of all tasks have
            line = transfer(source, self.network, self.outputs, part=part, force=h["weights_force"])
            rank_zero_only(print)(line)
        if h["feature_cache"] is not None:
            cache = FeatureCache(cast(Backbone, self.backbone), Path(h["feature_cache"]), h["feature_cache_gb"] * GB)
            rank_zero_only(print)(cache)

    def on_train_start(self) -> None:
        """Log once an epoch at least."""
        trainer = self.trainer
        steps = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
        trainer.log_every_n_steps = int(min(trainer.log_every_n_steps, steps))  # type: ignore[attr-defined]

    def training_step(self, batch: B) -> Tensor:
        terms = self.losses(batch)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise InputError(
                f"The loss is {loss.item()} at step {self.global_step}, batch {', '.join(batch.names)}: "
                "look at these files, lower model.lr, or train with trainer.precision 32-true"
            )
        self.log("train/loss", loss, prog_bar=True)
        if len(terms) > 1:
            self.log_dict({f"train/{name}": term for name, term in terms.items()})
        return loss

    def on_train_batch_end(self, outputs: Any, batch: B, batch_idx: int) -> None:
        self.resuming = False
        trainer = self.trainer
        last_epoch = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
        if last_epoch or trainer.global_step == trainer.max_steps:
            # asked to stop, Lightning validates first; by itself it may end on steps that nobody has scored
            trainer.check_val_every_n_epoch, trainer.should_stop = 1, True

    def validation_step(self, batch: B) -> Sequence[Any]:  # type: ignore[override]  # callbacks get what is predicted
        return self._evaluate("val", batch)

    def test_step(self, batch: B) -> Sequence[Any]:  # type: ignore[override]
        return self._evaluate("test", batch)

    def predict_step(self, batch: B) -> Sequence[Any]:
        return self.predict(batch)

    def on_validation_epoch_end(self) -> None:
        self._close("val")

    def on_test_epoch_end(self) -> None:
        self._close("test")

    def _evaluate(self, stage: Stage, batch: B) -> Sequence[Any]:
        predictions = self.predict(batch)
        self.update(stage, batch, predictions)
        return predictions

    def _close(self, stage: Stage) -> None:
        self.reports[stage] = report = self.report(stage)
        for module in self.modules():
            if isinstance(module, Metric):
                module.reset()
        self.log_dict({f"{stage}/{name}": value for name, value in report.figures.items()}, prog_bar=stage == "val")
        self.log_dict({f"{stage}/{name}": value for name, value in report.logged().items()})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = optimization.optimizer(self.network, self.backbone, self.hparams)
        scheduler = optimization.schedule(optimizer, int(self.trainer.estimated_stepping_batches), self.hparams)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

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
        optimization.check_kept(checkpoint["hyper_parameters"], self.hparams)
        optimization.let_now_win(checkpoint, optimization.optimizer(self.network, self.backbone, self.hparams))


AnyTask = Task[Any, Any]


def _named_as_now(task: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Checkpoints of before tasks shared a name for their network call it segmentor."""
    for name in [name for name in state_dict if name.startswith(f"{prefix}segmentor.")]:
        state_dict[f"{prefix}network.{name.removeprefix(f'{prefix}segmentor.')}"] = state_dict.pop(name)


def is_plain(value: object) -> bool:
    """Whether a configuration can hold it: numbers, words, lists and dictionaries."""
    if isinstance(value, Mapping):
        return all(map(is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
