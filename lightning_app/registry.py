"""Names under which blocks and heads are chosen: explicit slugs, each with its paper."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import getdoc
from typing import TypeVar

from torch import nn

from lightning_app.errors import InputError

M = TypeVar("M", bound=type[nn.Module])


@dataclass(frozen=True)
class Entry:
    """One registered class and where it comes from."""

    slug: str
    cls: type[nn.Module]
    paper: str  # "arXiv:1811.11721", or a venue where the paper has no arXiv number
    year: int

    @property
    def summary(self) -> str:
        """First line of the class's docstring."""
        return (getdoc(self.cls) or "").partition("\n")[0]


class Registry(Mapping[str, Entry]):
    """Slug -> entry; every public module of ``package`` is imported on the first look, so adding a file is enough."""

    def __init__(self, kind: str, package: str, listing: str) -> None:
        self.kind, self.package, self.listing = kind, package, listing
        self._entries: dict[str, Entry] = {}
        self._complete = False

    def register(self, slug: str, *, paper: str, year: int) -> Callable[[M], M]:
        """Class decorator that files a class under ``slug``."""

        def add(cls: M) -> M:
            if slug in self._entries:
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

    def __getitem__(self, slug: str) -> Entry:
        entries = self._discovered()
        if slug not in entries:
            close = difflib.get_close_matches(slug.lower(), entries, n=1)
            hint = f' Did you mean "{close[0]}"?' if close else ""
            raise InputError(f'Unknown {self.kind} "{slug}".{hint} ({self.listing})')
        return entries[slug]

    def __contains__(self, slug: object) -> bool:
        return slug in self._discovered()

    def __iter__(self) -> Iterator[str]:
        return iter(self._discovered())

    def __len__(self) -> int:
        return len(self._discovered())


BLOCKS = Registry("block", "lightning_app.blocks", "contextzoo blocks")
HEADS = Registry("head", "lightning_app.heads", "contextzoo heads")
