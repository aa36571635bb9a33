"""Whether the fast forms run: ``CONTEXTZOO_FAST=0`` in the environment, or ``fast`` in Python, turns all off."""

import os

import torch

_on = os.environ.get("CONTEXTZOO_FAST") != "0"


class fast:  # named as it is read: with fast(False)
    """Run the fast forms, or with ``fast(False)`` every operator's plain one, from now on or inside a ``with``.

    Example:
        >>> with fast(False):
        ...     is_fast()
        False
        >>> is_fast()
        True
    """

    def __init__(self, on: bool) -> None:
        global _on
        self.before, _on = _on, on

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        global _on
        _on = self.before


def is_fast() -> bool:
    """Whether an operator may choose its fast form."""
    return _on


def is_traced() -> bool:
    """Whether a graph is being compiled or exported: it must not hold what this machine likes."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
