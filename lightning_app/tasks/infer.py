"""What ``contextzoo infer`` does with a photograph: each task says it in a class below the one here."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from lightning_app.data.bad_file import BadFile

Advance = Callable[[float], None]  # is told how much more of a file is done


class Infer(ABC):
    """Looks at photographs with one network, and writes what it sees. A task's class names the class as ``infer``.

    Attributes:
        options: those that this task has beside everybody's, as argparse's ``add_argument`` takes them.
        others: of them, those that name other weights, and these weights' task: a network comes in place of the name.
        writes: endings of the files of one photograph, the most telling one first.
        done: what has been done to a photograph, in a word.

    Args:
        network: with pretrained weights.
        typed: a value for each option.
    """

    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    others: ClassVar[Mapping[str, str]] = {}
    writes: ClassVar[tuple[str, ...]]
    done: ClassVar[str] = "done"

    @abstractmethod
    def __init__(self, network: Any, typed: argparse.Namespace) -> None: ...

    @abstractmethod
    def image(self, source: Path, target: Path, advance: Advance) -> str:
        """Look at one photograph, write the files ``target`` + ending, and tell in a line what was seen."""

    def video(self, source: Path, target: Path, advance: Advance) -> str:
        """The same of a video."""
        raise BadFile(source, ("A video",), "These weights look at photographs alone.")


def score(text: str) -> float:
    """A typed score."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a score from 0 to 1")
    return number


def named(target: Path, ending: str) -> Path:
    """A file of ``target``, a path without its ending."""
    return target.with_name(target.name + ending)
