"""What only the weights of one task say of themselves: the record that each task's class names."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, get_type_hints

from torch import nn

from lightning_app.reading import specs
from lightning_app.registry import HEADS, TASKS, Entry
from lightning_app.tasks.info import Info
from lightning_app.tasks.report import Best
from lightning_app.util.errors import InputError
from zoo import ZooEntry

N = TypeVar("N", bound=nn.Module)
R = TypeVar("R")


class Facts(ABC, Generic[N]):
    """A frozen dataclass of what a header holds for one task beside what it holds for all, under the fields' names.

    A task's class names it as ``facts``; reading, building and publishing weights ask nothing else of a task.

    Attributes:
        parts: arguments of the task that rebuild its network; the rest of them only train it.
        figures: of the task's report, those that are told with weights.
        pipeline: what the Hugging Face hub calls the task.
    """

    parts: ClassVar[tuple[str, ...]]
    figures: ClassVar[tuple[str, ...]]
    pipeline: ClassVar[str]

    @classmethod
    @abstractmethod
    def read(cls, content: Mapping[str, Any], where: str) -> Self:
        """The record in a header, which is of a file's own making: every value is checked.

        Raises:
            InputError: a field is missing or cannot be used; the line begins with ``where``.
        """

    @classmethod
    @abstractmethod
    def of_run(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a checkpoint of ``contextzoo fit``, as a header holds them, for ``read`` to look at."""

    @classmethod
    def best_validation(cls, content: Mapping[str, Any]) -> Best | None:
        """The best validation that a checkpoint remembers."""
        state = content.get("callbacks", {}).get("ClassTable")
        return Best.from_state(state) if state else None

    @abstractmethod
    def network(self, model: Mapping[str, Any], name: str) -> N:
        """A network from its parts, freshly initialised; it fetches nothing.

        Args:
            name: of the weights, for a person.

        Raises:
            InputError: the parts are of no network.
        """

    @abstractmethod
    def info(self, **shared: Any) -> Info:
        """What a network that is built from the weights carries; ``shared`` are the fields of ``Info``."""

    @classmethod
    def published(cls, path: Path, entry: ZooEntry) -> tuple[N, Mapping[str, Any], Self]:
        """The network in a file that others published, an entry of the zoo; its parts as a configuration has them.

        Raises:
            InputError: the file is not the entry's, or the task knows no such files.
        """
        raise InputError(f"{path}: the task {entry.task} reads no files of the format {entry.format}")

    @classmethod
    def of_network(cls, network: Any) -> Self:
        """What a network carries, as ``info`` made it."""
        return cls(**{each.name: getattr(network.known, each.name) for each in fields(cls)})  # type: ignore[arg-type]

    def of_others(self, names: Sequence[str]) -> Self:
        """The same where the network tells other things apart.

        Raises:
            InputError: the task cannot have it.
        """
        raise InputError(f"{type(self).__name__} are of what the weights were trained on, and of nothing else")

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Names of what the network tells apart, in their order."""

    def protocol_in_words(self) -> str:
        """How images are to be looked at; empty where nothing is to be said."""
        return ""

    def head(self, network: N) -> Entry:
        """The head under which the zoo files such a network.

        Raises:
            InputError: it is not registered.
        """
        cls = type(getattr(network, "head", None))
        for entry in HEADS.values():
            if entry.cls is cls:
                return entry
        raise InputError(f"{cls.__name__} is not registered as a head (contextzoo heads)")

    def details(self, crop: Sequence[int] | None, data: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a zoo entry that only this task has.

        Args:
            crop: height and width of the training crops, where they were given or are known.
            data: the datamodule, as ``{class_path, init_args}``.
            model: the parts of the network.

        Raises:
            InputError: something is to be given that is not.
        """
        return {}

    @staticmethod
    def look(network: N, details: Mapping[str, Any]) -> None:
        """Let the network look once at what a zoo entry's GFLOP are counted of; nothing where a task does not tell.

        Args:
            details: the fields of the entry that only this task has.
        """

    def as_dict(self) -> dict[str, Any]:
        """Itself as JSON can hold it."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # each class below is a dataclass


def facts_of(task: str) -> type[Facts[Any]]:
    """The record of a task.

    Raises:
        InputError: the task names none.
    """
    facts: type[Facts[Any]] | None = getattr(TASKS[task], "facts", None)
    if facts is None:
        raise InputError(f"The task {task} does not say what its weights hold: none can be loaded or published")
    return facts


def record(cls: type[R], values: Any, what: str) -> R:
    """A dataclass of plain values from a file, each of its type.

    Raises:
        InputError: they are not; the line begins with ``what``.
    """
    specs.check_plain(values, what)
    if not isinstance(values, Mapping):
        raise InputError(f"{what} is {specs.shown(values)}, not names and values")
    fitted = specs.fit(values, get_type_hints(cls), what)
    return specs.make(lambda: cls(**fitted), what)


def is_text(value: Any) -> bool:
    """Whether a value from a file can be a name."""
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()
