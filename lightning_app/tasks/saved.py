"""How a task's checkpoint says what it holds, and how the task is made of it again."""

import inspect
import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from lightning.pytorch import LightningModule

from lightning_app.reading import checkpoints, specs
from lightning_app.reading.specs import Part
from lightning_app.registry import import_parts
from lightning_app.util.described import Described
from lightning_app.util.errors import InputError


class SavedTask(LightningModule):
    """What all tasks share of checkpoints; ``Task`` tells of the attributes."""

    slug: ClassVar[str]
    from_data: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[Mapping[str, Part]]
    network: Any

    @classmethod
    def facts_of(cls, hyper_parameters: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """What a checkpoint knows of the data that it was trained on.

        Raises:
            InputError: less than its network needs.
        """
        return {name: hyper_parameters[name] for name in cls.from_data if name in hyper_parameters}

    def check_data(self, before: Mapping[str, Any], path: Path, data: str) -> None:
        """Raise an InputError where a checkpoint's facts are of other data than the ones that are given now, which are
        called ``data``: here where a list, as of names, has another length."""
        for name, value in before.items():
            now = self.hparams.get(name)
            if isinstance(value, list) and isinstance(now, list) and len(value) != len(now):
                words = name.replace("_", " ")
                raise InputError(
                    f"{path} has {len(value)} {words}, {data} has {len(now)}: give the data it was trained on"
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say how to make this task again, in the words of the command line, whose runs say it themselves."""
        if "config" in checkpoint:
            return
        try:
            checkpoint["config"] = self._configuration()
        except InputError as error:  # training goes on; whoever wants to load it hears why not
            checkpoint["undescribed"] = str(error)

    def describe(self) -> dict[str, Any]:
        """The arguments of this task that are objects, as a configuration writes them: here the parts that its network
        has by their names, and the dataclasses that it has itself.

        Raises:
            InputError: one of them cannot be described.
        """
        described: dict[str, Any] = {}
        for name, part in self.parts.items():
            made = getattr(self.network, name, None)
            described[name] = made.description(skip=len(part.given)) if isinstance(made, Described) else None
        own = {name: getattr(self, name, None) for name in specs.parameters(type(self))}
        return described | {
            name: asdict(value) for name, value in own.items() if is_dataclass(value) and not isinstance(value, type)
        }

    def _configuration(self) -> dict[str, Any]:
        trainer = self.trainer
        data: Any = getattr(trainer, "datamodule", None)
        return {
            "task": self.slug,
            "seed_everything": int(os.environ.get("PL_GLOBAL_SEED", 0)),
            "model": {k: v for k, v in self.hparams.items() if k not in self.from_data} | self.describe(),
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
        what = f"{path}: its model"
        given = content["config"].get("model")
        facts = cls.facts_of(content["hyper_parameters"], path)
        if not isinstance(given, Mapping):
            raise InputError(f"{path} does not say how to rebuild its model: contextzoo fit did not write it")
        facts = {name: fact for name, fact in facts.items() if fact is not None}
        settings = {name: value for name, value in given.items() if name not in cls.parts} | facts
        specs.check_plain(settings, what)
        kinds = specs.parameters(cls)
        settings = {**specs.fit(settings, kinds, what), "weights": None}
        for name, value in settings.items():
            if is_dataclass(kinds[name]) and isinstance(value, Mapping):
                settings[name] = specs.make(partial(kinds[name], **value), f"{path}: its {name}")
        import_parts()
        needed = inspect.signature(cls).parameters
        if any(given.get(name) is None and needed[name].default is inspect.Parameter.empty for name in cls.parts):
            raise InputError(f"{path} does not say how to rebuild its model: contextzoo fit did not write it")
        makers = {name: specs.maker(given.get(name), name, part, what) for name, part in cls.parts.items()}
        # a part that the network gives arguments is handed on as what makes it
        ready = {name for name, part in cls.parts.items() if not part.given}

        def build() -> Any:
            parts = {name: make() if make and name in ready else make for name, make in makers.items()}
            return cls(**{**parts, **settings, **options})

        with specs.at_most([tensor.numel() for tensor in content["state_dict"].values()], what):
            task: Self = specs.make(build, what)
        try:
            task.load_state_dict(content["state_dict"])
        except RuntimeError as error:
            raise InputError(f"{path}: its weights do not fit its model: {specs.shown(str(error))}") from error
        return task if map_location is None else task.to(map_location)
