"""Which task a command means: what was typed, a configuration, a checkpoint or weights say it; else semantic."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import yaml

from lightning_app.app.arguments import value_of
from lightning_app.registry import TASKS
from lightning_app.util.errors import InputError

OPTION: Final = "--task"


def said(args: Sequence[str], files: Sequence[Path]) -> str | None:
    """The task that was typed, or that the configurations are for; None where nothing says one.

    Raises:
        InputError: two that differ, or one that there is not.
    """
    found = list(_said(args, files))
    for (first, slug), (other, another) in pairwise(found):
        if slug != another:
            raise InputError(f"{first} is for the task {slug}, {other} for {another}: leave one of them out")
    return found[0][1] if found else None


def settle(said: str | None, source: str, slug: str) -> str:
    """The task of a checkpoint or of weights, ``slug``, which must be the one that was ``said``, if any was.

    Raises:
        InputError: they differ.
    """
    if said is not None and said != slug:
        raise InputError(f"{source} is of the task {slug}, not {said}: leave {OPTION} {said} or its configuration out")
    return slug


def _said(args: Sequence[str], files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """What says a task, and which."""
    if (typed := value_of(args, OPTION)) is not None:
        yield f"{OPTION} {typed}", TASKS.slug(typed)
    for file in files:
        name = yaml.safe_load(file.read_text()).get("task")
        if name is not None:
            if not isinstance(name, str):
                raise InputError(f"{file}: its task is {name!r:.80}, not a name (one of {', '.join(TASKS)})")
            try:
                yield str(file), TASKS.slug(name)
            except InputError as error:
                raise InputError(f"{file}: {error}") from None
