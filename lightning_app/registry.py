"""Names under which blocks and heads are chosen: explicit slugs, each with its paper."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from inspect import getdoc
from typing import TypeVar

from torch import nn

from lightning_app.util.errors import InputError, suggest

M = TypeVar("M", bound=type[nn.Module])


@dataclass(frozen=True)
class Entry:
    """One registered class and where it comes from."""

    slug: str
    cls: type[nn.Module]
    paper: str  # "arXiv:1811.11721", or a venue where the paper has no arXiv number; may be empty
    year: int  # 0 where it is not known

    @property
    def summary(self) -> str:
        """First line of the class's docstring."""
        return (getdoc(self.cls) or "").partition("\n")[0]


def plain(name: str) -> str:
    """A name without case, blanks, hyphens and underscores, as names are compared."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


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
            for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
                importlib.import_module(f"{self.package}.{module.name}")
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
