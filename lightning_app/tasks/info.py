"""What a network with pretrained weights knows besides its numbers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from lightning_app.util.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Info:
    """What weights of every task say; each task adds its own below.

    Args:
        name: id in the zoo, or the file's name.
        task: what the network does.
        data: the datamodule that they were trained with: its ``class_path`` and ``init_args``.
        metrics: figure -> per cent; none where nobody measured them.
        source: who measured them on what.
        split: of the data, on which they were measured; empty where that is not known.
        parts: the parts of the network as a configuration has them.
    """

    name: str
    task: str
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    split: str = ""
    parts: Mapping[str, Any] = field(default_factory=dict)

    told: ClassVar[str] = "classes"  # what the network tells apart

    @property
    def outputs(self) -> int:
        """How many things the network tells apart."""
        return 0

    @staticmethod
    def lengths(outputs: int) -> tuple[int, ...]:
        """Of the network's layers that grow with its outputs, as far as a layer's length says it."""
        return (outputs,)

    def known(self, figure: str) -> str:
        """A figure and who measured it, in words."""
        if figure not in self.metrics:
            return "no figure is known"
        return f"{self.metrics[figure]:.2f} {self.source}"


class Informed:
    """A network that may carry what its weights know, as ``info``."""

    info: Any = None  # of pretrained weights: an Info

    @property
    def known(self) -> Any:
        """What the weights know besides their numbers.

        Raises:
            InputError: they are not pretrained.
        """
        if self.info is None:
            raise InputError(
                "This model was made by hand, so what its numbers mean is not known: set model.info, "
                "or take one from load(weights)"
            )
        return self.info


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; afterwards each part is in the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
