"""fit, validate, test and predict: LightningCLI with our links, defaults, run folders and error lines."""

import logging
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]

from lightning_app.app import configs, saved, trust
from lightning_app.app.arguments import prepared
from lightning_app.app.parser_errors import explain
from lightning_app.backbones.patchify import Patchify  # noqa: F401
from lightning_app.callbacks import SaveConfig
from lightning_app.callbacks.save_config import PLACES
from lightning_app.data import FileDataModule, SegmentationDataModule
from lightning_app.reading import checkpoints, specs
from lightning_app.registry import HEADS
from lightning_app.runs.endings import why_it_ended
from lightning_app.runs.folders import RUNS, WORDS, check_name, good_ones, newest, run_of, weights_of
from lightning_app.runs.lock import Lock
from lightning_app.tasks.semantic.inference import Protocol
from lightning_app.tasks.semantic.network import ModelInfo, Segmentor
from lightning_app.tasks.semantic.task import FROM_DATA, SegmentationTask
from lightning_app.util.errors import InputError, input_error
from lightning_app.weights.load import find, load

BASE = configs.FOLDER / "base.yaml"
ASKING = ("-c", "--config", "--help", "--print_config")  # a configuration may name weights, and help needs none
RUN_VARIABLE = "CONTEXTZOO_RUN"  # tells the other processes of a run, which read the same command line, its folder


def train(verb: str, args: list[str]) -> int:
    """Run one of LightningCLI's subcommands as typed."""
    trusted = trust.OPTION in args
    args, files = _with_config_paths([arg for arg in args if arg != trust.OPTION])
    if (run := _value(args, "--run")) is not None:
        check_name(run)
    with trust.imports(files, args, trust=trusted), Lock() as lock:
        try:
            return _train(verb, args, lock, trusted)
        except (OSError, RuntimeError) as error:
            if line := why_it_ended(error, lock.folder):
                raise InputError(line) from error
            raise
        except SystemExit as error:  # Lightning's, where Ctrl-C came before the first step or after the last one
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise


def _train(verb: str, args: list[str], lock: Lock, trusted: bool) -> int:
    len(HEADS)  # the parser knows by short name what is imported: the heads, as Patchify and the datamodules above
    args = prepared(args)
    _quieten()
    torch.set_float32_matmul_precision("high")
    if weights := _value(args, "--weights"):
        return _evaluate(verb, weights, args)
    checkpoint = _find_checkpoint(verb, _value(args, "--ckpt_path"), _value(args, "--run"), trusted)
    if checkpoint is None:
        if verb != "fit" and not any(arg in ASKING or arg.endswith(".help") for arg in args):
            raise _without_weights(verb)
        with tempfile.TemporaryDirectory() as folder:
            return _CLI(None, args=[verb, *_of_weights(verb, args, Path(folder)), *args], lock=lock).status
    args = _with_value(args, "--ckpt_path", str(checkpoint.path))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.yaml"
        file.write_text(yaml.safe_dump(checkpoint.config))
        try:
            return _CLI(checkpoint, args=[verb, "-c", str(file), *args], lock=lock).status
        except InputError as error:
            raise InputError(str(error).replace(str(file), str(checkpoint.path))) from error


def _of_weights(verb: str, args: list[str], folder: Path) -> list[str]:
    """The parts of the weights that fit starts from, as a configuration below all others, but those that were given."""
    options = zip(["", *args], args, strict=False)
    files = [Path(arg) for option, arg in options if option in ("-c", "--config")]
    models = [model for file in files if isinstance(model := yaml.safe_load(file.read_text()).get("model"), dict)]
    weights, part = (
        _value(args, f"--model.{name}") or next((m[name] for m in reversed(models) if m.get(name)), None)
        for name in ("weights", "weights_part")
    )
    if verb != "fit" or not weights:
        return []
    info = load(weights).info
    assert info is not None

    def given(part: str) -> bool:
        """Whether which class or which timm model was said, and not only an argument of it."""
        names = (f"--model.{part}", f"--model.{part}.class_path", f"--model.{part}.name")
        return any(_value(args, name) for name in names) or any(part in model for model in models)

    parts: dict[str, Any] = {}
    if not given("backbone"):
        backbone = info.parts["backbone"]
        arguments = {key: value for key, value in backbone.get("init_args", {}).items() if key != "pretrained"}
        parts["backbone"] = {**backbone, "init_args": arguments}  # no other weights are fetched
    if part != "backbone" and not given("head"):
        parts["head"] = info.parts.get("head")
        if not given("auxiliary"):
            parts |= {key: info.parts[key] for key in ("auxiliary", "auxiliary_weight") if key in info.parts}
    saved = folder / "weights.yaml"
    saved.write_text(yaml.safe_dump({"model": parts}))
    return ["-c", str(saved)] if parts else []


def _without_weights(verb: str) -> InputError:
    return InputError(f"{verb} with which weights? Give --ckpt_path best, a .ckpt file, or --weights ID")


def _evaluate(verb: str, weights: str, args: list[str]) -> int:
    """Run a subcommand with weights that say themselves what they are, and hold their figure against the known one."""
    if verb == "fit":
        raise InputError("fit starts from weights with --model.weights; --weights is for test, validate and predict")
    if _value(args, "--ckpt_path"):
        raise InputError("Give --weights or --ckpt_path, not both")
    of_task = tuple(f"--model.{name}" for name in ("protocol", "channels_last", "compile"))
    for arg in args:
        if arg.startswith("--model") and not arg.startswith(of_task):
            raise InputError(f"--weights brings its own model: leave out {arg.partition('=')[0]}")
    model = load(weights)
    assert model.info is not None
    info = model.info
    base = {key: part for key, part in yaml.safe_load(BASE.read_text()).items() if key != "model"}
    path = info.data.get("class_path")
    there = specs.known_classes(SegmentationDataModule)
    if path in {*there, *(each.__name__ for each in there.values())}:
        arguments = dict(info.data["init_args"]) | ({"test_split": info.split} if verb == "test" and info.split else {})
        base["data"] = {"class_path": path, "init_args": arguments}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "base.yaml"
        file.write_text(yaml.safe_dump(base))
        split_is_ours = verb == "test" and _value(args, "--data.test_split") is None
        cli = _CLI(
            None,
            args=[verb, *args],
            lock=Lock(),
            model=_as_task(model, info),
            base=file,
            or_own_test_split=split_is_ours,
        )
    scores = cli.model.scores
    if scores is not None and cli.trainer.is_global_zero:
        known = "no figure is known" if info.miou is None else f"{info.miou:.2f} {info.miou_source}"
        print(f"mIoU {100 * scores.miou:.2f} measured here; {known}")
    return cli.status


def _as_task(model: Segmentor, info: ModelInfo) -> type[SegmentationTask]:
    """What the command line makes its model with: a task that evaluates by the weights' own protocol."""

    class Pretrained(SegmentationTask):
        def __init__(
            self,
            num_classes: int,
            ignore_index: int,
            class_names: list[str],
            palette: list[tuple[int, int, int]],
            protocol: Protocol = info.protocol,
            channels_last: bool = False,
            compile: bool = False,
        ) -> None:
            if num_classes != len(info.classes):
                raise InputError(
                    f"{info.name} knows {len(info.classes)} classes, the data has {num_classes}: "
                    "give the data it was trained on"
                )
            if tuple(class_names) != info.classes:
                rank_zero_only(print)(f"Compared by number: {info.name} calls its classes {', '.join(info.classes)}")
            extra = model.auxiliary
            super().__init__(
                model.backbone,
                lambda in_channels, num_classes: model.head,
                None if extra is None else lambda in_channels, num_classes: extra,
                num_classes=num_classes,
                ignore_index=ignore_index,
                class_names=list(info.classes),
                palette=list(info.palette),
                protocol=protocol,
                channels_last=channels_last,
                compile=compile,
            )

    return Pretrained


def _quieten() -> None:
    """Leave out what Lightning says of itself; warnings that concern the run still show."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        "LightningCLI's args parameter",
        ".*LeafSpec",
        ".*find the monitored key",
        ".*does not have many workers",
        ".*in eval mode at the start of training",
        "Attribute 'backbone' is an instance of",
        ".*exists and is not empty",
        "The dirpath has changed",
        "The number of training batches",  # the task then logs once an epoch
        ".*callbacks used to create the checkpoint need",
    ):
        warnings.filterwarnings("ignore", message=text)


@dataclass(frozen=True)
class _Checkpoint:
    path: Path
    step: int
    num_classes: int
    config: dict[str, Any]  # of the run that wrote it: below everything on this command line, above the defaults


class _Parser(LightningArgumentParser):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_abbrev = False  # the beginning of an option is a misspelt option

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = self._subcommands_action.choices["fit"] if self._subcommands_action else self
        raise InputError(explain(message, list(parser._option_string_actions))) from ex


class _CLI(LightningCLI):
    """LightningCLI that fits ``SegmentationTask`` to any of our datamodules, in a folder of the run's own."""

    def __init__(
        self,
        checkpoint: _Checkpoint | None,
        args: list[str],
        *,
        lock: Lock,
        model: type[SegmentationTask] = SegmentationTask,
        base: Path = BASE,
        or_own_test_split: bool = False,
    ) -> None:
        self.checkpoint, self.lock, self.or_own_test_split = checkpoint, lock, or_own_test_split
        defaults = {"default_config_files": [str(base)]}
        try:
            super().__init__(
                model,
                SegmentationDataModule,
                subclass_mode_data=True,
                save_config_callback=SaveConfig,
                parser_class=_Parser,
                parser_kwargs=dict.fromkeys(("fit", "validate", "test", "predict"), defaults),
                args=args,
                auto_configure_optimizers=False,
            )
        except MisconfigurationException as error:  # Lightning's own word for bad input
            raise InputError(" ".join(str(error).split())) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--weights", type=str | None, default=None, help="evaluate these: an id of the zoo, or a file"
        )
        parser.add_argument("--run", type=str | None, default=None, help=f"name of the run's folder under {RUNS}/")
        for action in parser._actions:
            if action.dest in ("model.head.help", "model.auxiliary.help"):
                # in_channels and num_classes, which the task gives
                action.sub_add_kwargs["skip"] = {2}  # type: ignore[attr-defined]
        for fact in FROM_DATA:
            parser.link_arguments(f"data.{fact}", f"model.{fact}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            super().parse_arguments(parser, args)
        except InputError as error:
            raise InputError(_with_file(str(error), args)) from error

    def instantiate_classes(self) -> None:
        try:
            with self._without_first_weights():
                super().instantiate_classes()
        except ValueError as error:  # of a constructor: torch's, Lightning's or ours
            raise input_error(error) or InputError(" ".join(str(error).split())) from error

    @contextmanager
    def _without_first_weights(self) -> Iterator[None]:
        """A network that gets its own weights fetches no others; its configuration stays as it was."""
        part: Any = self.config[self.subcommand].get("model.backbone.init_args") if self.checkpoint else None
        before = {name: part[name] for name in specs.STARTING if name in part} if part else {}
        for name in before:
            part[name] = False
        yield
        for name, value in before.items():
            part[name] = value

    def _parse_ckpt_path(self) -> None:
        """Lightning would let the checkpoint's arguments win over the command line here; ours are parsed before it."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if "verbose" in config:
            config.verbose = False  # Lightning's table of every metric; ClassTable shows them readably
        if "return_predictions" in config:
            config.return_predictions = False  # PredictionWriter has them on disk
        if self.subcommand != "fit" and self.checkpoint is None and not config.weights:
            raise _without_weights(str(self.subcommand))
        if self.subcommand == "fit" and self.checkpoint is None and config.model.weights:
            find(config.model.weights)  # or say so before anything is written
        if config.ckpt_path != (str(self.checkpoint.path) if self.checkpoint else None):
            raise InputError(f"ckpt_path {config.ckpt_path} stands in a configuration: type it, --ckpt_path FILE")
        if config.weights_only is False:
            raise InputError("weights_only false would run what a checkpoint says: leave it out")
        config.weights_only = True  # whatever the environment says of torch.load
        self._say_what_is_loaded(config)
        folder = self._run_folder(config)
        before = config.trainer.default_root_dir  # of the run whose configuration this one starts from
        config.trainer.default_root_dir = str(folder)
        callbacks: list[Any] = []
        for callback in config.trainer.callbacks or []:
            saves = callback.class_path.endswith("ModelCheckpoint")
            if saves and callback.init_args.dirpath in (None, f"{before}/checkpoints"):
                callback.init_args.dirpath = str(folder / "checkpoints")
            if callback not in callbacks:  # given by a run's configuration, and again by a -c
                callbacks.append(callback)
        config.trainer.callbacks = callbacks
        loggers = config.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if hasattr(logger, "init_args") and logger.init_args.get("save_dir") in (None, ".", before):
                logger.init_args.save_dir = str(folder)

    @property
    def status(self) -> int:
        """The exit status: 1 where some pictures could not be predicted."""
        return int(bool(self.datamodule.faults))

    def after_instantiate_classes(self) -> None:
        if self.or_own_test_split and isinstance(self.datamodule, FileDataModule):
            self.datamodule.fall_back_to_own_test_split()
        self.datamodule.setup(self.subcommand)  # bad data is found before anything is written
        if self.subcommand == "fit":
            self.datamodule.train_dataloader()
        network = self.model.segmentor
        count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        names = f"{type(network.head).__name__} on {getattr(network.backbone, 'name', type(network.backbone).__name__)}"
        rank_zero_only(print)(f"{names}, {count:.1f} M parameters, in {self.trainer.default_root_dir}")
        on_cpu = isinstance(self.trainer.accelerator, CPUAccelerator)
        if on_cpu and self.trainer.precision.startswith("bf16") and torch.backends.cpu.get_cpu_capability() == "AVX2":
            rank_zero_only(print)(
                "This processor computes bf16 many times slower than fp32: add --trainer.precision 32-true",
                file=sys.stderr,
            )
        if self.checkpoint is not None:
            saved = self.checkpoint.num_classes
            now = self.model.hparams.num_classes
            if saved != now:
                raise InputError(
                    f"{self.checkpoint.path} knows {saved} classes, {type(self.datamodule).__name__} has {now}: "
                    "give the data it was trained on"
                )
        if self.subcommand == "fit":
            folder = Path(self.trainer.default_root_dir)
            self._take(folder)
            strategy, save = self.trainer.strategy, checkpoints.CheckpointFiles(folder)
            if type(strategy.checkpoint_io) is TorchCheckpointIO:
                strategy.checkpoint_io = save
            elif type(strategy.checkpoint_io) is AsyncCheckpointIO:
                strategy.checkpoint_io = AsyncCheckpointIO(save)

    def _run_folder(self, config: Any) -> Path:
        if RUN_VARIABLE in os.environ and "LOCAL_RANK" in os.environ:
            return Path(os.environ[RUN_VARIABLE])
        resumed = self.checkpoint and run_of(self.checkpoint.path)
        if config.run is not None:
            check_name(config.run)
            folder: Path = RUNS / config.run
        elif resumed:
            folder = resumed
        else:
            data = config.data.class_path.rpartition(".")[2]
            if config.weights:
                what = Path(config.weights).stem
            else:
                what = config.model.head.class_path.rpartition(".")[2] if config.model.head else "fcn"
            when = os.environ.get("SLURM_JOB_ID") or time.strftime("%Y%m%d-%H%M%S")
            folder = RUNS / f"{data}-{what}-{when}".lower()
        if self.subcommand == "fit" and folder.exists():
            self._take(folder)
        os.environ[RUN_VARIABLE] = str(folder)
        return folder

    def _take(self, folder: Path) -> None:
        """Make ``folder`` this training's own, on the process that writes there."""
        if getattr(rank_zero_only, "rank", 0) != 0:
            return
        self.lock.take(folder)
        if (folder / "checkpoints").exists() and not (self.checkpoint and run_of(self.checkpoint.path) == folder):
            raise InputError(
                f"{folder} holds a run already: resume it with --run {folder.name} --ckpt_path last, "
                "or choose another --run"
            )

    def _say_what_is_loaded(self, config: Any) -> None:
        if self.checkpoint is None:
            return
        parts = [part for part in ("model", "data", "trainer") if part in self.checkpoint.config]
        before = _flat({part: self.checkpoint.config[part] for part in parts})
        now = _flat({part: config[part].as_dict() for part in parts})
        changes = [f"{key} {old} -> {now[key]}" for key, old in before.items() if key in now and now[key] != old]
        changes += [f"{key} -> {new}" for key, new in now.items() if key not in before and new is not None]
        override = f" You override: {', '.join(changes)}." if changes else ""
        verb = "Resuming" if self.subcommand == "fit" else "Loading"
        place = run_of(self.checkpoint.path) or self.checkpoint.path
        rank_zero_only(print)(f"{verb} {place} at step {self.checkpoint.step}.{override}")


def _with_file(message: str, args: list[str]) -> str:
    """``message`` with the configuration file in front that holds the word it complains of, unless that was typed."""
    options = zip(["", *args], args, strict=False)
    files = [Path(arg) for option, arg in options if option in ("-c", "--config")]
    word = (re.search(r'"(?:[\w.-]*\.)?([^"]+)"', message) or ["", ""])[1]
    holds = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
    if word and not any(holds.search(arg) for arg in args):
        for file in reversed(files):
            if file.is_file() and holds.search(file.read_text()):
                return f"{file}: {message}"
    return message


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration as dotted keys, without the words that only jsonargparse needs."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping) and key != "loss":
            flat |= _flat(value, name)
        elif key == "class_path":
            flat[prefix] = str(value).rpartition(".")[2]
        elif key not in (*FROM_DATA, "callbacks", "logger", "default_root_dir"):
            flat[name] = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    return flat


def _value(args: list[str], option: str) -> str | None:
    """The value given to ``option``, as ``--option X`` or ``--option=X``; the last one where it is repeated."""
    value = None
    for position, arg in enumerate(args):
        if arg == option and position + 1 < len(args):
            value = args[position + 1]
        elif arg.startswith(f"{option}="):
            value = arg.partition("=")[2]
    return value


def _with_value(args: list[str], option: str, value: str) -> list[str]:
    """``args`` with every value of ``option`` replaced."""
    replaced = [f"{option}={value}" if arg.startswith(f"{option}=") else arg for arg in args]
    for position, arg in enumerate(args[:-1]):
        if arg == option:
            replaced[position + 1] = value
    return replaced


def _with_config_paths(args: list[str]) -> tuple[list[str], list[Path]]:
    """``args`` with each configuration as ``-c PATH``, and the checked files that these are."""
    paths: list[str] = []
    files: list[Path] = []
    words = iter(args)
    for arg in words:
        match = re.fullmatch(r"(?:--config|-c)(?:=(.*))?|-c([^=].*)", arg, re.DOTALL)
        name = next((each for each in match.groups() if each is not None), None) if match else None
        if match and name is None:
            name = next(words, None)
        if name is None:
            paths.append(arg)
        else:
            files.append(configs.checked(configs.find(name)))
            paths += ["-c", str(files[-1])]
    return paths, files


def _find_checkpoint(verb: str, name: str | None, run: str | None, trusted: bool) -> _Checkpoint | None:
    """The checkpoint that ``--ckpt_path`` means: a file, or the last or best one of a run (the newest by default)."""
    if name is None or name == "null":
        return None
    path = Path(name)
    if name in WORDS:
        found = newest(name, run)
        if found is None:
            raise InputError(
                f"--ckpt_path {name}: no {RUNS}/{run or '*'}/checkpoints/{name}.ckpt; give the file itself"
            )
        path = found
    elif not path.is_file():
        path = weights_of(name) or path
    if not path.is_file():
        raise InputError(f"--ckpt_path {name}: no such file; give a .ckpt file, {', '.join(WORDS)}")
    try:
        content = checkpoints.read(path)
    except checkpoints.Damaged as error:
        raise InputError(f"{error}. {good_ones(path, verb)}") from error
    config, left = saved.configuration(content["config"], path, resume=verb == "fit", trust=trusted)
    saved.check_states(content.get("callbacks"), path)
    if left:
        print(f"Not taken from {path}: {', '.join(left)}; give it again where it is wanted", file=sys.stderr)
    _find_places(config.get("data") or {}, path)
    num_classes, step = content["hyper_parameters"].get("num_classes"), content.get("global_step")
    if type(num_classes) is not int or type(step) is not int:
        raise InputError(f"{path} does not say how to rebuild its model: contextzoo fit did not write it")
    return _Checkpoint(path, step, num_classes, config)


def _find_places(data: Mapping[str, Any], checkpoint: Path) -> None:
    """Relative paths of an older run count from the folder it was started in, where here is nothing of that name."""
    arguments, run = data.get("init_args") or {}, run_of(checkpoint)
    if run is None:
        return
    for name in PLACES:
        place = arguments.get(name)
        if place and not Path(place).exists() and (there := run.absolute().parents[1] / place).exists():
            arguments[name] = str(there)
