"""What weights say of themselves: a record in a file's header, checked when it is read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, Self, TypeVar, get_type_hints

from lightning_app.data.facts import Colour
from lightning_app.reading import specs
from lightning_app.tasks.semantic.inference import EvaluationProtocol
from lightning_app.tasks.semantic.network import ModelInfo
from lightning_app.util.errors import InputError
from zoo.header import DESCRIPTION

T = TypeVar("T")

HEADER: Final = DESCRIPTION  # of a safetensors file's metadata: the record, as JSON
NEEDED: Final = ("name", "model", "classes", "palette", "protocol", "data")
MOST_CLASSES: Final = 10_000
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
    """A figure in per cent, who measured it, in which stage (val or test) and, where that is known, on which split."""

    miou: float | None = None
    source: str = ""
    stage: str = "val"
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class Description:
    """What rebuilds a model and tells its classes, its protocol and where it comes from.

    Args:
        name: id in the zoo, or the file's name.
        model: backbone, head and auxiliary head as a configuration has them.
        classes, palette: a name and an RGB colour for each number.
        protocol: how images are to be looked at.
        provenance: which of a run's weights these are, and what wrote them.
        licences: of the code, the weights and the training data.
    """

    name: str
    model: Mapping[str, Any]
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    protocol: EvaluationProtocol
    data: Data = field(default_factory=Data)
    training: Training | None = None
    metrics: Metrics | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Itself as JSON holds it; what is not known is left out."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {key: value for key, value in plain.items() if key in NEEDED or value}

    def as_header(self) -> dict[str, str]:
        """The metadata of a safetensors file."""
        return {"format": "pt", HEADER: json.dumps(self.as_dict())}

    @property
    def info(self) -> ModelInfo:
        """What a model that is built from it carries."""
        metrics = self.metrics or Metrics()
        return ModelInfo(
            self.name,
            self.classes,
            self.palette,
            self.protocol,
            asdict(self.data),
            metrics.miou,
            metrics.source,
            parts=self.model,
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
        classes, palette = content["classes"], content["palette"]
        if not _is_text(content["name"]):
            raise InputError(f"{path}: its name is {specs.shown(content['name'])}")
        if not isinstance(classes, list) or not 0 < len(classes) <= MOST_CLASSES or not all(map(_is_text, classes)):
            raise InputError(f"{path}: its classes are {specs.shown(classes)}, not a list of names")
        if not isinstance(palette, list) or len(palette) != len(classes) or not all(map(_is_colour, palette)):
            raise InputError(
                f"{path}: its palette is {specs.shown(palette)}, not a colour for each of {len(classes)} classes"
            )
        for part in ("model", "protocol", "data"):
            if not isinstance(content[part], Mapping):
                raise InputError(f"{path}: its {part} is {specs.shown(content[part])}, not names and values")
        training, metrics = content.get("training"), content.get("metrics")
        return cls(
            name=content["name"],
            model=content["model"],
            classes=tuple(classes),
            palette=tuple((red, green, blue) for red, green, blue in palette),
            protocol=_record(EvaluationProtocol, content["protocol"], f"{path}: its protocol"),
            data=_data(content["data"], path),
            training=_record(Training, _known(Training, training), f"{path}: its training") if training else None,
            metrics=_record(Metrics, _known(Metrics, metrics), f"{path}: its metrics") if metrics else None,
            provenance=_texts(content.get("provenance")),
            licences=_texts(content.get("licences")),
        )


def _record(cls: type[T], values: Any, what: str) -> T:
    """A dataclass of plain values, each of its type."""
    specs.check_plain(values, what)
    if not isinstance(values, Mapping):
        raise InputError(f"{what} is {specs.shown(values)}, not names and values")
    fitted = specs.fit(values, get_type_hints(cls), what)
    return specs.make(lambda: cls(**fitted), what)


def _known(cls: type, values: Any) -> Any:
    """Of the values, those that this release knows."""
    kinds = get_type_hints(cls)
    return {key: each for key, each in values.items() if key in kinds} if isinstance(values, Mapping) else values


def _data(values: Mapping[str, Any], path: str | Path) -> Data:
    name, arguments = values.get("class_path") or "", values.get("init_args") or {}
    specs.check_plain(arguments, f"{path}: its data")
    if (name and not _is_text(name)) or not isinstance(arguments, Mapping):
        raise InputError(f"{path}: its data is {specs.shown(values)}, not a class and its arguments")
    return Data(name, arguments)


def _texts(values: Any) -> dict[str, str]:
    pairs = values.items() if isinstance(values, Mapping) else ()
    return {str(key): each for key, each in pairs if isinstance(each, str)}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _is_colour(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(type(x) is int and 0 <= x < 256 for x in value)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
