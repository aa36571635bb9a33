"""What validate, test and predict do with weights that say themselves what they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """How a network that brings its weights is evaluated.

    Args:
        task: a class of the task that takes the network as it is; what its data give, and what may be changed, are all
            of its arguments.
        model: those of its arguments that the weights say, such as their protocol.
        data: the datamodule of their training, ``{class_path, init_args}``; empty where it is not known.
        split: of that data, on which their figure was measured; empty where it is not known.
        known: that figure and who measured it, in words.
        names: arguments of a datamodule that say what it would read in its annotations, such as ``{classes: ...}``,
            where nothing but a folder is predicted.
    """

    task: type[Any]
    model: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    split: str = ""
    known: str = "no figure is known"
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
