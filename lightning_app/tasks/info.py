"""What a network with pretrained weights knows besides its numbers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from lightning_app.registry import TASKS
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
        training: how they were trained, as the zoo's index counts it; empty where that is not known.
        provenance: what they began from, and what wrote them.
        licences: of the code, the weights and the training data, as far as they are known.
    """

    name: str
    task: str
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    split: str = ""
    parts: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)

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
    """A network that may carry what its weights know, as ``info``, and can be kept with it."""

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

    def parts(self) -> Mapping[str, Any]:
        """The parts of the network as a configuration has them, which build it again.

        Raises:
            InputError: they are not known.
        """
        parts: Mapping[str, Any] = self.known.parts
        return parts

    def save_pretrained(self, folder: str | Path, **options: Any) -> Path:
        """Write ``model.safetensors``, which ``load(folder)`` builds this network from, and its card, ``README.md``.

        Args:
            folder: made where it is not there; what an earlier call wrote there is replaced.
            options: ``name``, by default the weights' own; ``picture``, a photograph for the card, with what is seen in
                it; ``licence`` of the weights, such as ``"CC-BY-4.0"``; ``half``, to store in half precision.

        Raises:
            InputError: a network that cannot be described, or a folder that holds other weights.
        """
        path: Path = TASKS[self.known.task].save_network(self, folder, **options)
        return path

    def push_to_hub(self, repository: str, *, private: bool = False, **options: Any) -> str:
        """Put what ``save_pretrained`` writes into a repository of the Hugging Face hub, in one commit; its address.

        Args:
            repository: ``"user/name"``, made where it is not there.
            private: make it so that others do not see it.
            options: as for ``save_pretrained``.

        Raises:
            InputError: as for ``save_pretrained``; or no huggingface_hub, no login, or the hub does not take it.
        """
        address: str = TASKS[self.known.task].push_network(self, repository, private=private, **options)
        return address


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
