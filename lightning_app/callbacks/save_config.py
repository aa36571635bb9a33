"""The whole configuration, beside the run's results and in its log."""

from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn

from lightning_app.util.files import replacing

PLACES = ("root", "predict_folder")  # arguments of a datamodule that are paths


class SaveConfig(SaveConfigCallback):
    """Write the configuration, defaults included, into the run's folder and send it to the loggers.

    ``config.yaml`` for fit, else the subcommand's name; a resumed run that differs gets ``config-2.yaml``. What the
    data told the model follows as comments under ``# hparams``, so that the file stays one to start from.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace) -> None:
        super().__init__(parser, config, save_to_log_dir=False)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Every checkpoint says how it was made, so that a command with ``--ckpt_path`` needs no other word."""
        checkpoint["config"] = self._values

    @cached_property  # it stays as it is, and is written with every checkpoint
    def _values(self) -> Any:
        return yaml.safe_load(self._text)

    @cached_property
    def _text(self) -> str:
        """The configuration, with whole paths, since the run may be used from another folder."""
        config = self.config.clone()
        arguments = config.data.init_args if "data" in config and config.data else {}
        for name in PLACES:
            if arguments.get(name) is not None:
                arguments[name] = Path(arguments[name]).expanduser().absolute()
        text: str = self.parser.dump(config, skip_none=False)
        return text

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        config = self._text
        linked = {k: v for k, v in pl_module.hparams.items() if k not in self.config.model and not k.startswith("_")}
        text = config + _commented("hparams", linked)
        path = _free(Path(trainer.default_root_dir), "config" if stage == "fit" else TrainerFn(stage).value, text)
        with replacing(path) as temporary:
            temporary.write_text(text)
        for logger in trainer.loggers:
            logger.log_hyperparams(yaml.safe_load(config))  # each its own, to change as it likes


def _commented(title: str, values: dict[str, Any]) -> str:
    text = yaml.safe_dump(values, default_flow_style=None, width=120)
    return "".join(f"# {line}\n" for line in [title, *text.splitlines()])


def _free(folder: Path, stem: str, text: str) -> Path:
    """The first of stem.yaml, stem-2.yaml, ... that is not there or holds ``text`` already."""
    number, path = 1, folder / f"{stem}.yaml"
    while path.exists() and path.read_text() != text:
        number += 1
        path = folder / f"{stem}-{number}.yaml"
    return path
