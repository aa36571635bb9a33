"""A block by its name, with arguments that a configuration or a command line gives."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from torch import nn

from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError, suggest


def named_block(slug: str, channels: int, arguments: Mapping[str, Any]) -> nn.Module:
    """The block for maps of ``channels`` channels.

    Raises:
        InputError: unknown block or argument, or arguments that it cannot be built from.
    """
    entry = BLOCKS[slug]
    known = list(signature(entry.cls).parameters)[1:]
    for key in arguments:
        if key not in known and "options" not in known:
            has = ", ".join(known) or "none"
            raise InputError(f'The block {slug} has no argument "{key}".{suggest(key, known)} It has: {has}')
    try:
        return entry.cls(channels, **arguments)
    except TypeError as error:
        raise InputError(f"The block {slug} cannot be built from {dict(arguments)}: {error}") from error
