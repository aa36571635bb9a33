"""How a task gives its network away: as a folder, or on the hub."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from lightning_app.tasks.report import Report
from lightning_app.tasks.saved import SavedTask
from lightning_app.util.errors import InputError
from lightning_app.weights import folder, hub
from lightning_app.weights.checkpoint import describe
from lightning_app.weights.description import Description, Metrics
from lightning_app.weights.facts import Facts, facts_of


class SharedTask(SavedTask):
    """What all tasks share of it; ``Task`` tells of the attributes."""

    facts: ClassVar[type[Facts[Any]]]
    reports: dict[str, Report]

    @classmethod
    def run_name(cls, model: Mapping[str, Any]) -> str:
        """What a run with the configured model is called, between its data and its time."""
        return cls.slug

    @classmethod
    def save_network(cls, network: Any, to: str | Path, **options: Any) -> Path:
        """Write a network of this task that carries what it knows, as ``save_pretrained`` says."""
        return folder.save(network, to, **options)

    @classmethod
    def push_network(cls, network: Any, repository: str, *, private: bool = False, **options: Any) -> str:
        """Put a network of this task on the hub, as ``push_to_hub`` says."""
        hub.check_repository(repository)
        with TemporaryDirectory() as stage:
            name = options.pop("name", None) or repository.rpartition("/")[2]
            folder.save(network, stage, name=name, address=f"{hub.SCHEME}{repository}", **options)
            return hub.push(Path(stage), repository, f"Add {name}", private=private)

    def save_pretrained(self, to: str | Path, **options: Any) -> Path:
        """Write the network, which from here on carries what the task knows of it, as the network's own method does.

        Raises:
            InputError: the task names no facts of its weights, or a part of it cannot be described.
        """
        self.network.info = self.description().info
        return self.save_network(self.network, to, **options)

    def push_to_hub(self, repository: str, *, private: bool = False, **options: Any) -> str:
        """Put what ``save_pretrained`` writes into a repository of the Hugging Face hub; its address."""
        self.network.info = self.description().info
        return self.push_network(self.network, repository, private=private, **options)

    def description(self) -> Description:
        """What the network's weights are, as a checkpoint of this moment would say it.

        Raises:
            InputError: it has no trainer, or a part of it cannot be described.
        """
        try:
            config = self._configuration()
        except RuntimeError:
            raise InputError("This task has had no trainer: call trainer.fit, validate or test first") from None
        name, report, stage = self.run_name(config["model"]), self.reports.get("test"), "test"
        if report is None:
            report, stage = self.reports.get("val"), "val"
        state = {"epoch": self.current_epoch, "global_step": self.global_step}
        described = describe({"config": config, "hyper_parameters": dict(self.hparams), **state}, Path(name))
        known = report.figures if report else {}
        figures = {figure: 100 * known[figure] for figure in facts_of(self.slug).figures if figure in known}
        source = f"measured in Python by a trainer's {'test' if stage == 'test' else 'validation'}"
        splits: Mapping[str, str] = getattr(getattr(self.trainer, "datamodule", None), "splits", {})
        metrics = Metrics(figures, source, stage, splits.get(stage))
        return replace(described, metrics=metrics if figures else None)
