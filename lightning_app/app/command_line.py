"""LightningCLI with our links, defaults, run folders and error lines."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
import yaml
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]

from lightning_app.app import configs
from lightning_app.app.arguments import config_files
from lightning_app.app.class_names import choices
from lightning_app.app.parser_errors import explain, with_file
from lightning_app.app.resume import Checkpoint
from lightning_app.app.run_folder import RunFolder
from lightning_app.callbacks import SaveConfig
from lightning_app.kernels.half import has_bfloat16
from lightning_app.reading import specs
from lightning_app.registry import TASKS
from lightning_app.runs import RUNS
from lightning_app.runs.endings import why_it_ended
from lightning_app.tasks.base import AnyTask
from lightning_app.util.errors import InputError, input_error
from lightning_app.weights.load import find

BASE = configs.FOLDER / "base.yaml"  # of every task; configs/task/ has what one of them adds
BEST = "best"  # the file of the checkpoint that the task's figure chooses


def without_weights(verb: str) -> InputError:
    """The error where nothing says which weights are evaluated."""
    return InputError(f"{verb} with which weights? Give --ckpt_path best, a .ckpt file, or --weights ID")


class Parser(LightningArgumentParser):
    """A parser whose errors are one line."""

    choices: ClassVar[dict[str, type]] = {}  # what is chosen by the name of a class -> what that class is below

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_abbrev = False  # the beginning of an option is a misspelt option
        self.verbs: Any = None  # the parsers of the subcommands, in the one above them

    def add_subcommands(self, *args: Any, **kwargs: Any) -> Any:
        self.verbs = super().add_subcommands(*args, **kwargs)
        return self.verbs

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        (parser,) = self.verbs.choices.values() if self.verbs else [self]
        raise InputError(explain(message, list(parser._option_string_actions), self.choices)) from ex


class CommandLine(LightningCLI):
    """One of LightningCLI's subcommands, in a folder of the run's own.

    Args:
        args: the subcommand and what was typed behind it.
        task: its arguments are ``--model.X``, and its datamodules ``--data``.
        run: where it writes.
        checkpoint: what it goes on from.
        start: what the task adds to the defaults of all; that of configs/task/ where none is given.
        or_own_test_split: test on the split that the dataset has, where the one that it should have is not there.

    Raises:
        InputError: anything that was typed, or that a file holds, cannot be.
    """

    def __init__(
        self,
        args: Sequence[str],
        *,
        task: type[AnyTask],
        run: RunFolder,
        checkpoint: Checkpoint | None = None,
        start: Path | None = None,
        or_own_test_split: bool = False,
    ) -> None:
        self.task = task
        self.run_folder, self.checkpoint, self.or_own_test_split = run, checkpoint, or_own_test_split
        self.typed = list(args)
        files = [BASE, start or configs.of_task(task.slug)]
        defaults = {"default_config_files": [str(file) for file in files if file.is_file()]}
        try:
            super().__init__(
                task,
                task.data,
                subclass_mode_data=True,
                save_config_callback=SaveConfig,
                parser_class=type("TaskParser", (Parser,), {"choices": choices(task)}),
                parser_kwargs={self.typed[0]: defaults},
                args=list(args),
                auto_configure_optimizers=False,
            )
        except MisconfigurationException as error:  # Lightning's own word for bad input
            raise InputError(" ".join(str(error).split())) from error
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            resuming = checkpoint is not None and getattr(getattr(self, "model", None), "resuming", False)
            other = isinstance(error, torch.OutOfMemoryError) or why_it_ended(error, run.lock.folder)
            if checkpoint is None or not resuming or input_error(error) or other:
                raise
            reason = f"{type(error).__name__}: {specs.shown(str(error))}"
            raise InputError(
                f"{checkpoint.path} does not say how its training goes on ({reason}); --debug shows where"
            ) from error

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # theirs, of all verbs, asks no instance
        """The one that was typed: a parser of all arguments takes its time to build."""
        return {verb: skipped for verb, skipped in LightningCLI.subcommands().items() if verb == self.typed[0]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--weights", type=str | None, default=None, help="evaluate these: an id of the zoo, or a file"
        )
        parser.add_argument("--run", type=str | None, default=None, help=f"name of the run's folder under {RUNS}/")
        parser.add_argument("--task", type=str, default=self.task.slug, help=f"one of {', '.join(TASKS)}")
        for name, part in self.task.parts.items():
            option = f"--model.{name}.help"
            if part.given and option in parser._option_string_actions:
                skipped = {"skip": {len(part.given)}}
                parser._option_string_actions[option].sub_add_kwargs |= skipped  # type: ignore[attr-defined]
        for fact in self.task.from_data:
            parser.link_arguments(f"data.{fact}", f"model.{fact}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            super().parse_arguments(parser, args)
        except InputError as error:
            raise InputError(with_file(str(error), args)) from error
        # Lightning would now let the arguments in a checkpoint win over the command line: it shall see no checkpoint.
        config = self.config[self.config.subcommand]
        self.ckpt_path, config.ckpt_path = config.ckpt_path, None

    def before_instantiate_classes(self) -> None:
        verb, config, checkpoint = str(self.subcommand), self.config[self.subcommand], self.checkpoint
        config.task = TASKS.slug(config.task)
        if config.task != self.task.slug:  # said where nobody looked for it, as in an environment variable
            raise InputError(f"This is the task {self.task.slug}, not {config.task}: type --task {config.task}")
        config.ckpt_path = self.ckpt_path
        if "verbose" in config:
            config.verbose = False  # Lightning's table of every metric; ClassTable shows them readably
        if "return_predictions" in config:
            config.return_predictions = False  # PredictionWriter has them on disk
        if verb != "fit" and checkpoint is None and not config.weights:
            raise without_weights(verb)
        if verb == "fit" and checkpoint is None and config.model.weights:
            find(config.model.weights)  # or say so before anything is written
        if config.ckpt_path != (str(checkpoint.path) if checkpoint else None):
            raise InputError(f"ckpt_path {config.ckpt_path} stands in a configuration: type it, --ckpt_path FILE")
        if config.weights_only is False:
            raise InputError("weights_only false would run what a checkpoint says: leave it out")
        config.weights_only = True  # whatever the environment says of torch.load
        if checkpoint is not None:
            parts = ("model", "data", "trainer")
            rank_zero_only(print)(checkpoint.line(verb, {part: config[part].as_dict() for part in parts}))
        if config.trainer.logger is False:  # Lightning refuses what would have nowhere to write to
            config.trainer.callbacks = [
                each for each in config.trainer.callbacks or [] if not each.class_path.endswith("LearningRateMonitor")
            ]
        for callback in config.trainer.callbacks or []:
            arguments = callback.get("init_args")
            saves = callback.class_path.endswith("ModelCheckpoint")
            if saves and arguments.filename == BEST and arguments.monitor is None:  # what is best, the task says
                arguments.monitor, arguments.mode = self.task.monitor, self.task.mode
        self.run_folder.choose(verb, config, self.task)

    def instantiate_classes(self) -> None:
        try:
            with self._without_first_weights():
                super().instantiate_classes()
        except ValueError as error:  # of a constructor: torch's, Lightning's or ours
            raise input_error(error) or InputError(" ".join(str(error).split())) from error

    @contextmanager
    def _without_first_weights(self) -> Iterator[None]:
        """A network that gets its own weights fetches no others; its configuration stays as it was."""
        model: Any = self.config[self.subcommand].model
        parts = [model.get(part) for part in self.task.parts] if self.checkpoint else []
        given = [part.init_args for part in parts if hasattr(part, "init_args")]
        before = [(part, name, part[name]) for part in given for name in specs.STARTING if name in part]
        for part, name, _ in before:
            part[name] = False
        yield
        for part, name, value in before:
            part[name] = value

    def after_instantiate_classes(self) -> None:
        for callback in self.trainer.checkpoint_callbacks:  # a task may say only now which of its figures counts
            if isinstance(callback, ModelCheckpoint) and callback.monitor == self.task.monitor:
                callback.monitor = self.model.monitor
        for file in config_files(self.typed):
            _check_facts(file, self.task, self.datamodule)
        if self.or_own_test_split:
            self.datamodule.fall_back_to_own_test_split()
        self.datamodule.setup(self.subcommand)  # bad data is found before anything is written
        if self.subcommand == "fit":
            self.datamodule.train_dataloader()
        count = sum(parameter.numel() for parameter in self.model.network.parameters()) / 1e6
        rank_zero_only(print)(f"{self.model.title}, {count:.2f} M parameters, in {self.trainer.default_root_dir}")
        on_cpu = isinstance(self.trainer.accelerator, CPUAccelerator)
        if on_cpu and self.trainer.precision.startswith("bf16") and not has_bfloat16(torch.device("cpu")):
            rank_zero_only(print)(
                "This processor does not multiply bf16, so that fp32 is faster: add --trainer.precision 32-true",
                file=sys.stderr,
            )
        if self.checkpoint is not None:
            self.model.check_data(self.checkpoint.facts, self.checkpoint.path, type(self.datamodule).__name__)
        if self.subcommand == "fit":
            self.run_folder.take(self.trainer)

    @property
    def status(self) -> int:
        """The exit status: 1 where some pictures could not be predicted."""
        return int(bool(self.datamodule.faults))


def _check_facts(file: Path, task: type[AnyTask], data: Any) -> None:
    """Raise an InputError where a configuration tells of the data what they are not."""
    model = yaml.safe_load(file.read_text()).get("model")
    for name in task.from_data:
        said, now = (model.get(name) if isinstance(model, dict) else None), getattr(data, name)
        if said is not None and said != json.loads(json.dumps(now)):  # in the words of a file
            raise InputError(
                f"{file}: its model.{name} is {specs.shown(said)}, and {type(data).__name__} has "
                f"{specs.shown(now)}: leave it out"
            )
