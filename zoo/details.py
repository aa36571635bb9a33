"""What only the weights of one task have: a record for each task, found by the task's name in ``zoo/tasks/``."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from zoo.values import check_field, check_types, kinds_of, unfit

TASKS: Final = frozenset(path.stem for path in (Path(__file__).parent / "tasks").glob("[a-z]*.py"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Details(ABC):
    """Fields of an entry that only one task has. A class below it names the task's figures too.

    Attributes:
        metrics: figure -> how a column is headed; the first is always there, and the first two are columns of the list.
    """

    metrics: ClassVar[Mapping[str, str]]

    def __post_init__(self) -> None:
        check_types(self, kinds_of(type(self)))
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Raise a FieldError where a value cannot be, whatever its type."""

    @abstractmethod
    def lines(self) -> dict[str, str]:
        """What ``zoo show`` says of them: a name and a value for each line."""

    def begins(self, head: str) -> str:
        """What the ids of a head begin with."""
        return f"{head}_"

    def protocol(self, told: Mapping[str, Any]) -> str:
        """How the figures were measured, in words, or as the weights' own file tells; empty where nothing is known."""
        return ""

    def training(self) -> str:
        """What a batch holds, in words."""
        return "images"

    def looked_at(self) -> str:
        """What GFLOP are counted of, in words."""
        return "one such crop"

    def check_published(self) -> None:
        """Raise a FieldError where the weights are other people's and a field lacks that only those need."""
        self.check()

    def _check(self, name: str, good: bool, rule: str) -> None:
        check_field(self, name, good, rule)

    @classmethod
    def keys(cls) -> dict[str, bool] | None:
        """Field -> whether it must be given; None where any will do."""
        return {each.name: each.default is MISSING for each in fields(cls)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The record of an entry's table: lists of it are tuples where a field is one."""
        kinds = kinds_of(cls)
        return cls(
            **{name: tuple(v) if isinstance(v, list) and tuple in kinds[name] else v for name, v in values.items()}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherDetails(Details):
    """Of a task that has no record here: any plain values and figures."""

    metrics: ClassVar[Mapping[str, str]] = {}
    values: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        assert not unfit(self.values)

    def lines(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.values.items()}

    @classmethod
    def keys(cls) -> None:
        return None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        return cls(values=dict(values))


@cache
def details_of(task: str) -> type[Details]:
    """The record of a task."""
    if task not in TASKS:
        return OtherDetails
    record: type[Details] = import_module(f"zoo.tasks.{task}").Details
    return record
