"""Names under which blocks, heads and tasks are chosen: explicit slugs."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lightning_app.util.errors import InputError, suggest

if TYPE_CHECKING:  # the help of a training command needs names, and no torch
    from torch import nn

M = TypeVar("M", bound="type[nn.Module]")
T = TypeVar("T", bound="type[Any]")


@dataclass(frozen=True)
class Entry:
    """One registered class and where it comes from."""

    slug: str
    cls: type[nn.Module]
    paper: str  # "arXiv:1811.11721", or a venue where the paper has no arXiv number; may be empty
    year: int  # 0 where it is not known
    title: str = ""  # where it is not called as its class

    @property
    def name(self) -> str:
        """What people call it."""
        return self.title or self.cls.__name__

    @property
    def summary(self) -> str:
        """First line of the class's docstring."""
        return (getdoc(self.cls) or "").partition("\n")[0]


def plain(name: str) -> str:
    """A name without case, blanks, hyphens and underscores, as names are compared."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def import_modules(package: str) -> None:
    """Import every module of a package, so that its classes are known by name."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")


class Registry(Mapping[str, Entry]):
    """Slug, or class name, in any case -> entry.

    Every public module of ``package`` is imported on the first look, so adding a file is enough.
    """

    def __init__(self, kind: str, package: str, listing: str) -> None:
        self.kind, self.package, self.listing = kind, package, listing
        self._entries: dict[str, Entry] = {}
        self._complete = False

    def register(self, slug: str, *, paper: str, year: int, again: bool = False) -> Callable[[M], M]:
        """Class decorator that files a class under ``slug``; ``again``: in place of the one there, as in a notebook."""

        def add(cls: M) -> M:
            if slug in self._entries and not again:
                raise ValueError(f"{self.kind} {slug!r} is registered twice: {self._entries[slug].cls} and {cls}")
            self._entries[slug] = Entry(slug, cls, paper, year)
            return cls

        return add

    def _discovered(self) -> dict[str, Entry]:
        if not self._complete:
            import_modules(self.package)
            self._entries = dict(sorted(self._entries.items()))
            self._complete = True
        return self._entries

    def import_all(self) -> None:
        """Import every module of the package, so that its classes are known by name."""
        self._discovered()

    def names(self, typed: Iterable[str]) -> list[str]:
        """Slugs of what was typed, separated by blanks or commas.

        Raises:
            InputError: one is not known.
        """
        return [self[name].slug for words in typed for name in words.replace(",", " ").split()]

    def _find(self, name: str) -> Entry | None:
        entries = self._discovered()
        if name in entries:
            return entries[name]
        same = {plain(word): entry for entry in entries.values() for word in (entry.cls.__name__, entry.slug)}
        return same.get(plain(name))

    def __getitem__(self, name: str) -> Entry:
        entry = self._find(name)
        if entry is None:
            known = [word for each in self.values() for word in (each.cls.__name__, each.slug)]
            raise InputError(f'Unknown {self.kind} "{name}".{suggest(name, known)} ({self.listing})')
        return entry

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._discovered())

    def __len__(self) -> int:
        return len(self._discovered())


BLOCKS = Registry("block", "lightning_app.blocks", "contextzoo blocks")
HEADS = Registry("head", "lightning_app.heads", "contextzoo heads")
DEFAULT_TASK: Final = "semantic"


class Tasks(Mapping[str, Any]):
    """Slug, in any case -> class of a task.

    A package of ``lightning_app/tasks`` with a module ``task`` is one: found by name, imported when it is chosen, and
    with it the datamodules of the same name in ``lightning_app/data``. So adding the files is enough.
    """

    PACKAGE: Final = "lightning_app.tasks"
    DATA: Final = "lightning_app.data"

    def __init__(self) -> None:
        self._classes: dict[str, type[Any]] = {}

    def register(self, slug: str, *, again: bool = False) -> Callable[[T], T]:
        """Class decorator that files a task under ``slug``, which it then knows; ``again``: in place of the one there,
        as in a notebook."""

        def add(cls: T) -> T:
            ours = slug in self._packages() and cls.__module__ != f"{self.PACKAGE}.{slug}.task"
            if (slug in self._classes or ours) and not again:
                raise ValueError(f"task {slug!r} is registered twice: {self._classes.get(slug, 'ours')} and {cls}")
            cls.slug = slug
            self._classes[slug] = cls
            return cls

        return add

    def of_file(self, content: Mapping[str, Any], path: str | Path) -> str:
        """The slug of the task that a file names; the one of before there were several where it names none.

        Raises:
            InputError: it is none that is known; nothing is imported because a file names it.
        """
        slug = content.get("task", DEFAULT_TASK)
        if not isinstance(slug, str) or slug not in [*self]:
            raise InputError(
                f"{path}: its task is {slug!r:.80}, which is none of this program ({', '.join(self)}): "
                "if it is yours, import its module first (--import MODULE)"
            )
        return self.slug(slug)

    def file(self, slug: str) -> Path | None:
        """The module of a task that comes with this program."""
        return self._packages().get(slug)

    def slug(self, name: str) -> str:
        """The slug of what was typed.

        Raises:
            InputError: no such task.
        """
        found = {plain(each): each for each in self}.get(plain(name))
        if found is None:
            raise InputError(f'Unknown task "{name}".{suggest(name, self)} (one of {", ".join(self)})')
        return found

    def _packages(self) -> dict[str, Path]:
        (folder,) = importlib.import_module(self.PACKAGE).__path__
        files = {each.name: Path(folder, each.name, "task.py") for each in pkgutil.iter_modules([folder])}
        return {name: file for name, file in files.items() if file.is_file()}

    def __getitem__(self, name: str) -> type[Any]:
        slug = self.slug(name)
        if slug not in self._classes:
            importlib.import_module(f"{self.PACKAGE}.{slug}.task")
        if importlib.util.find_spec(f"{self.DATA}.{slug}"):
            import_modules(f"{self.DATA}.{slug}")
        return self._classes[slug]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and plain(name) in map(plain, self)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._classes, *self._packages()}))

    def __len__(self) -> int:
        return len(list(iter(self)))


TASKS = Tasks()


def import_parts() -> None:
    """Import every backbone and head, so that a file may name them and a parser knows their short names."""
    import_modules("lightning_app.backbones")
    HEADS.import_all()
