"""fit, validate, test and predict: LightningCLI with our links, defaults, run folders and error lines."""

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from lightning_app import configs
from lightning_app.callbacks import SaveConfig
from lightning_app.data import SegmentationDataModule
from lightning_app.errors import InputError
from lightning_app.explain import explain
from lightning_app.patchify import Patchify  # noqa: F401
from lightning_app.registry import HEADS
from lightning_app.task import SegmentationTask

RUNS = Path("runs")
FROM_DATA = ("num_classes", "ignore_index", "class_names", "palette")
RUN_VARIABLE = "CONTEXTZOO_RUN"  # tells the other processes of a run, which read the same command line, its folder


def train(verb: str, args: list[str]) -> int:
    """Run one of LightningCLI's subcommands as typed."""
    len(HEADS)  # the parser knows by short name what is imported: the heads, as Patchify and the datamodules above
    _quieten()
    torch.set_float32_matmul_precision("high")
    args = _with_config_paths(args)
    checkpoint = _find_checkpoint(_value(args, "--ckpt_path"), _value(args, "--run"))
    if checkpoint is None:
        _CLI(None, args=[verb, *args])
        return 0
    args = _with_value(args, "--ckpt_path", str(checkpoint.path))
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "checkpoint.yaml"
        saved.write_text(yaml.safe_dump(checkpoint.config))
        _CLI(checkpoint, args=[verb, "-c", str(saved), *args])
    return 0


def _quieten() -> None:
    """Leave out what Lightning says of itself; warnings that concern the run still show."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        "LightningCLI's args parameter",
        ".*LeafSpec",
        ".*find the monitored key",
        ".*does not have many workers",
        ".*exists and is not empty",
    ):
        warnings.filterwarnings("ignore", message=text)


@dataclass(frozen=True)
class _Checkpoint:
    path: Path
    step: int
    num_classes: int
    config: dict[str, Any]  # of the run that wrote it: below everything on this command line, above the defaults


class _Parser(LightningArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(explain(message, list(self._option_string_actions))) from ex


class _CLI(LightningCLI):
    """LightningCLI that fits :class:`SegmentationTask` to any of our datamodules, in a folder of the run's own."""

    def __init__(self, checkpoint: _Checkpoint | None, args: list[str]) -> None:
        self.checkpoint = checkpoint
        defaults = {"default_config_files": [str(configs.FOLDER / "base.yaml")]}
        super().__init__(
            SegmentationTask,
            SegmentationDataModule,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            parser_class=_Parser,
            parser_kwargs=dict.fromkeys(("fit", "validate", "test", "predict"), defaults),
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str | None, default=None, help=f"name of the run's folder under {RUNS}/")
        for fact in FROM_DATA:
            parser.link_arguments(f"data.{fact}", f"model.{fact}", apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """Lightning would let the checkpoint's arguments win over the command line here; ours are parsed before it."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if "verbose" in config:
            config.verbose = False  # Lightning's table of every metric; ClassTable shows them readably
        self._say_what_is_loaded(config)
        folder = self._run_folder(config)
        config.trainer.default_root_dir = str(folder)
        for callback in config.trainer.callbacks or []:
            if callback.class_path.endswith("ModelCheckpoint") and callback.init_args.dirpath is None:
                callback.init_args.dirpath = str(folder / "checkpoints")
        loggers = config.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if hasattr(logger, "init_args") and logger.init_args.get("save_dir") in (None, "."):
                logger.init_args.save_dir = str(folder)

    def after_instantiate_classes(self) -> None:
        network = self.model.segmentor
        count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        names = f"{type(network.head).__name__} on {getattr(network.backbone, 'name', type(network.backbone).__name__)}"
        rank_zero_only(print)(f"{names}, {count:.1f} M parameters, in {self.trainer.default_root_dir}")
        if self.checkpoint is not None:
            saved = self.checkpoint.num_classes
            now = self.model.hparams.num_classes
            if saved != now:
                raise InputError(
                    f"{self.checkpoint.path} knows {saved} classes, {type(self.datamodule).__name__} has {now}: "
                    "give the data it was trained on"
                )

    def _run_folder(self, config: Any) -> Path:
        if RUN_VARIABLE in os.environ and "LOCAL_RANK" in os.environ:
            return Path(os.environ[RUN_VARIABLE])
        resumed = self.checkpoint and _run_of(self.checkpoint.path)
        if config.run:
            folder = RUNS / config.run
        elif resumed:
            folder = resumed
        else:
            head, data = (config[part].class_path.rpartition(".")[2].lower() for part in ("model.head", "data"))
            folder = RUNS / f"{data}-{head}-{os.environ.get('SLURM_JOB_ID') or time.strftime('%Y%m%d-%H%M%S')}"
        if self.subcommand == "fit" and folder != resumed and (folder / "checkpoints").exists():
            raise InputError(
                f"{folder} holds a run already: resume it with --run {folder.name} --ckpt_path last, "
                "or choose another --run"
            )
        os.environ[RUN_VARIABLE] = str(folder)
        return folder

    def _say_what_is_loaded(self, config: Any) -> None:
        if self.checkpoint is None:
            return
        before = _flat(self.checkpoint.config["model"])
        now = _flat(config.model.as_dict())
        changes = [f"model.{key} {old} -> {now[key]}" for key, old in before.items() if key in now and now[key] != old]
        changes += [f"model.{key} -> {new}" for key, new in now.items() if key not in before and new is not None]
        override = f" You override: {', '.join(changes)}." if changes else ""
        verb = "Resuming" if self.subcommand == "fit" else "Loading"
        place = _run_of(self.checkpoint.path) or self.checkpoint.path
        rank_zero_only(print)(f"{verb} {place} at step {self.checkpoint.step}.{override}")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration as dotted keys, without the words that only jsonargparse needs."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping) and key != "loss":
            flat |= _flat(value, name)
        elif key == "class_path":
            flat[prefix] = str(value).rpartition(".")[2]
        elif key not in FROM_DATA:
            flat[name] = list(value) if isinstance(value, tuple) else value
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


def _with_config_paths(args: list[str]) -> list[str]:
    """``args`` with the names after -c replaced by paths of the shipped files."""
    paths = list(args)
    for position, arg in enumerate(args):
        option, equals, value = arg.partition("=")
        if arg in ("-c", "--config") and position + 1 < len(args):
            paths[position + 1] = str(configs.find(args[position + 1]))
        elif option == "--config" and equals:
            paths[position] = f"--config={configs.find(value)}"
    return paths


def _find_checkpoint(name: str | None, run: str | None) -> _Checkpoint | None:
    """The checkpoint that ``--ckpt_path`` means: a file, or the last or best one of a run (the newest by default)."""
    if name is None or name == "null":
        return None
    path = Path(name)
    if name in ("last", "best"):
        found = sorted(RUNS.glob(f"{run or '*'}/checkpoints/{name}.ckpt"), key=lambda file: file.stat().st_mtime)
        if not found:
            raise InputError(
                f"--ckpt_path {name}: no {RUNS}/{run or '*'}/checkpoints/{name}.ckpt; give the file itself"
            )
        path = found[-1]
    if not path.is_file():
        raise InputError(f"--ckpt_path {name}: no such file; give a .ckpt file, last or best")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a broken or foreign file makes torch raise
        raise InputError(f"--ckpt_path {name} is not a checkpoint of this program ({type(error).__name__})") from error
    if "config" not in content:
        raise InputError(f"--ckpt_path {name} does not say how to rebuild its model: contextzoo fit did not write it")
    config = {part: content["config"][part] for part in ("model", "data")}
    return _Checkpoint(path, int(content["global_step"]), content["hyper_parameters"]["num_classes"], config)


def _run_of(checkpoint: Path) -> Path | None:
    """The folder of the run that wrote a checkpoint."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None
