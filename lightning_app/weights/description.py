"""What weights say of themselves: a record in a file's header, checked when it is read."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from lightning_app.reading import specs
from lightning_app.registry import TASKS
from lightning_app.tasks.info import Info
from lightning_app.util.errors import InputError
from lightning_app.weights.facts import Facts, facts_of, is_text, record
from zoo.header import DESCRIPTION

HEADER: Final = DESCRIPTION  # of a safetensors file's metadata: the record, as JSON
NEEDED: Final = ("name", "model", "data")
LONGEST_HEADER: Final = 2**20


@dataclass(frozen=True)
class Data:
    """The datamodule that weights were trained with; an empty path where that is not known."""

    class_path: str = ""
    init_args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the class."""
        return self.class_path.rpartition(".")[2]


@dataclass(frozen=True)
class Training:
    """How weights were trained, as the zoo's index counts it: ``batch`` is over all devices, ``crop`` (H, W)."""

    iterations: int
    batch: int
    crop: tuple[int, int] | None
    optimizer: str
    lr: float


@dataclass(frozen=True)
class Metrics:
    """Figures in per cent, who measured them, in which stage (val or test) and, where that is known, on which split."""

    figures: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    stage: str = "val"
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class Description:
    """What rebuilds a network and tells what it knows, and where it comes from.

    Args:
        name: id in the zoo, or the file's name.
        task: what the network does; headers of before there were several say none.
        model: its parts as a configuration has them, such as backbone and head.
        facts: what only weights of this task say, such as classes.
        provenance: which of a run's weights these are, and what wrote them.
        licences: of the code, the weights and the training data.
        shared: part of the network -> sha256 of the file that holds it, for this file does not.
    """

    name: str
    task: str
    model: Mapping[str, Any]
    facts: Facts[Any]
    data: Data = field(default_factory=Data)
    training: Training | None = None
    metrics: Metrics | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Itself as JSON holds it; what is not known is left out."""
        shared = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "facts"}
        for name in ("data", "training", "metrics"):
            shared[name] = shared[name] and asdict(shared[name])
        known = {name: value for name, value in shared.items() if name in NEEDED or value}
        plain: dict[str, Any] = json.loads(json.dumps(known | self.facts.as_dict()))
        return plain

    def as_header(self) -> dict[str, str]:
        """The metadata of a safetensors file."""
        return {"format": "pt", HEADER: json.dumps(self.as_dict())}

    @property
    def backbone(self) -> str:
        """Of timm's backbones the model's name, of others the class."""
        part: Mapping[str, Any] = self.model["backbone"]
        return str(specs.given(part).get("name") or part["class_path"].rpartition(".")[2].lower())

    @property
    def info(self) -> Info:
        """What a network that is built from it carries."""
        metrics = self.metrics or Metrics()
        return self.facts.info(
            name=self.name,
            task=self.task,
            data=asdict(self.data),
            metrics=metrics.figures,
            source=metrics.source,
            split=metrics.split or "",
            parts=self.model,
            training=asdict(self.training) if self.training else {},
            provenance=self.provenance,
            licences=self.licences,
        )

    @classmethod
    def of_network(cls, network: Any) -> Self:
        """What a network carries, as ``info`` made it; its parts are asked anew.

        Raises:
            InputError: it carries nothing, or cannot be described.
        """
        info: Info = network.known
        return cls(
            name=info.name,
            task=info.task,
            model=network.parts(),
            facts=facts_of(info.task).of_network(network),
            data=Data(**info.data) if info.data else Data(),
            training=Training(**info.training) if info.training else None,
            metrics=Metrics(info.metrics, info.source, split=info.split or None) if info.metrics else None,
            provenance=info.provenance,
            licences=info.licences,
        )

    @classmethod
    def from_header(cls, metadata: Mapping[str, str], path: Path) -> Self:
        """The record in a safetensors file's metadata.

        Raises:
            InputError: there is none, or it is wrong.
        """
        text = metadata.get(HEADER, "{}")
        if len(text) > LONGEST_HEADER:
            raise InputError(f"{path} says {len(text)} characters of itself, where {LONGEST_HEADER} are enough")
        try:
            content = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} does not say how to rebuild its model: {specs.shown(str(error))}") from error
        return cls.from_dict(content, path)

    @classmethod
    def from_dict(cls, content: Any, path: str | Path) -> Self:
        """The record in plain data, which is of a file's own making; keys that are not known are left alone.

        Raises:
            InputError: a field cannot be used.
        """
        if not isinstance(content, Mapping) or not content.keys() >= set(NEEDED):
            raise InputError(f"{path} does not say how to rebuild its model: contextzoo zoo publish did not write it")
        task = TASKS.of_file(content, path)
        facts = facts_of(task)
        needed = {each.name for each in fields(facts) if each.default is each.default_factory is MISSING}  # type: ignore[arg-type]
        if missing := needed - content.keys():
            raise InputError(f"{path} does not say how to rebuild its model: it has no {', '.join(sorted(missing))}")
        if not is_text(content["name"]):
            raise InputError(f"{path}: its name is {specs.shown(content['name'])}")
        for part in ("model", "data"):
            if not isinstance(content[part], Mapping):
                raise InputError(f"{path}: its {part} is {specs.shown(content[part])}, not names and values")
        training, metrics = content.get("training"), content.get("metrics")
        return cls(
            name=content["name"],
            task=task,
            model=content["model"],
            facts=facts.read(content, str(path)),
            data=_data(content["data"], path),
            training=record(Training, _known(Training, training), f"{path}: its training") if training else None,
            metrics=record(Metrics, _known(Metrics, _named(metrics)), f"{path}: its metrics") if metrics else None,
            provenance=_texts(content.get("provenance")),
            licences=_texts(content.get("licences")),
            shared=_texts(content.get("shared")),
        )


def _known(cls: type, values: Any) -> Any:
    """Of the values, those that this release knows."""
    names = {each.name for each in fields(cls)}
    return {key: each for key, each in values.items() if key in names} if isinstance(values, Mapping) else values


def _named(metrics: Any) -> Any:
    """Metrics with figures by name; headers of before there were several tasks hold one, as miou."""
    if not isinstance(metrics, Mapping) or "miou" not in metrics or "figures" in metrics:
        return metrics
    return {**metrics, "figures": {} if metrics["miou"] is None else {"mIoU": metrics["miou"]}}


def _data(values: Mapping[str, Any], path: str | Path) -> Data:
    name, arguments = values.get("class_path") or "", values.get("init_args") or {}
    specs.check_plain(arguments, f"{path}: its data")
    if (name and not is_text(name)) or not isinstance(arguments, Mapping):
        raise InputError(f"{path}: its data is {specs.shown(values)}, not a class and its arguments")
    return Data(name, arguments)


def _texts(values: Any) -> dict[str, str]:
    pairs = values.items() if isinstance(values, Mapping) else ()
    return {str(key): each for key, each in pairs if isinstance(each, str)}


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
