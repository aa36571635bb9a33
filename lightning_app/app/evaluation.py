"""--weights: validate, test and predict with weights that say themselves what they are."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from lightning.pytorch.utilities import rank_zero_only

from lightning_app.app.arguments import value_of
from lightning_app.app.command_line import BASE, CommandLine
from lightning_app.app.run_folder import RunFolder
from lightning_app.data import SegmentationDataModule
from lightning_app.heads.base import ContextHead
from lightning_app.reading import specs
from lightning_app.runs.lock import Lock
from lightning_app.tasks.semantic.inference import EvaluationProtocol
from lightning_app.tasks.semantic.network import ModelInfo, Segmentor
from lightning_app.tasks.semantic.task import SegmentationTask
from lightning_app.util.errors import InputError
from lightning_app.weights.load import load

OF_TASK = tuple(f"--model.{name}" for name in ("protocol", "channels_last", "compile"))  # not of the network


class EvaluationTask(SegmentationTask):
    """A task that evaluates a network with weights that say what they are.

    The command line makes it of the arguments alone, so the network comes with the class that ``of`` gives.

    Raises:
        InputError: data of other classes.
    """

    pretrained: ClassVar[Segmentor]

    @classmethod
    def of(cls, network: Segmentor) -> type[Self]:
        """The task of one network."""
        return type(cls.__name__, (cls,), {"pretrained": network})

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
            [_given(head) for head in network.auxiliary_heads] or None,
            num_classes=num_classes,
            ignore_index=ignore_index,
            class_names=list(info.classes),
            palette=list(info.palette),
            protocol=protocol,
            channels_last=channels_last,
            compile=compile,
        )


def evaluate(verb: str, weights: str, args: Sequence[str], *, trusted: bool) -> int:
    """Run a subcommand with weights, and hold their figure against the known one.

    Raises:
        InputError: what was typed besides does not go with them.
    """
    if verb == "fit":
        raise InputError("fit starts from weights with --model.weights; --weights is for test, validate and predict")
    if value_of(args, "--ckpt_path"):
        raise InputError("Give --weights or --ckpt_path, not both")
    for arg in args:
        if arg.startswith("--model") and not arg.startswith(OF_TASK):
            raise InputError(f"--weights brings its own model: leave out {arg.partition('=')[0]}")
    network = load(weights)
    info = network.known
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base.yaml"
        base.write_text(yaml.safe_dump(_defaults(verb, info)))
        cli = CommandLine(
            [verb, *args],
            task=EvaluationTask.of(network),
            data=SegmentationDataModule,
            run=RunFolder(Lock(), typed=None if trusted else args),
            base=base,
            or_own_test_split=verb == "test" and value_of(args, "--data.test_split") is None,
        )
    report = cli.model.reports.get("test" if verb == "test" else "val")
    if report is not None and cli.trainer.is_global_zero:
        known = "no figure is known" if info.miou is None else f"{info.miou:.2f} {info.miou_source}"
        print(f"mIoU {100 * report.figures['mIoU']:.2f} measured here; {known}")
    return cli.status


def _defaults(verb: str, info: ModelInfo) -> dict[str, Any]:
    """What the command starts from: the weights' own protocol, and their data where that is known."""
    defaults: dict[str, Any] = yaml.safe_load(BASE.read_text())
    defaults["model"] = {"protocol": asdict(info.protocol)}
    path = info.data.get("class_path")
    there = specs.known_classes(SegmentationDataModule)
    if path in {*there, *(each.__name__ for each in there.values())}:
        split = {"test_split": info.split} if verb == "test" and info.split else {}
        defaults["data"] = {"class_path": path, "init_args": dict(info.data["init_args"]) | split}
    return defaults


def _given(head: ContextHead) -> Callable[[list[int], int], ContextHead]:
    """What builds a head, where it is built."""
    return lambda in_channels, num_classes: head
