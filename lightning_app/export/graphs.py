"""What is exported of a network of each task: tensors in, tensors out."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError

INPUT: Final = "images"
AXES: Final = {0: "batch", 2: "height", 3: "width"}  # that are free
BYTES: Final = 256  # classes that a byte tells apart


class Graph(nn.Module):
    """A network whose images come, and whose results leave, in single precision, whatever it computes in.

    Shape: RGB images (B, 3, H, W) in 0..1 -> what the network gives.

    Attributes:
        outputs: names of what it gives.
    """

    outputs: ClassVar[tuple[str, ...]] = ("output",)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.dtype = next((each.dtype for each in network.parameters() if each.is_floating_point()), torch.float32)

    def forward(self, images: Tensor) -> Any:
        result: Tensor = self.network(images.to(self.dtype))
        return result.float()

    def difference(self, images: Tensor, given: Sequence[Tensor]) -> float:
        """How far a file's results are from the network's: the largest difference over the largest magnitude."""
        wanted, (found,) = self(images), given
        if wanted.shape != found.shape or wanted.dtype != found.dtype:
            return math.inf
        return float((wanted - found).abs().max() / wanted.abs().max())


class Logits(Graph):
    """Logits of each class at each pixel, (B, K, H, W)."""

    outputs = ("logits",)


class Classes(Graph):
    """The likeliest class of each pixel, (B, H, W): bytes, or whole numbers of 32 bits for more than 256 classes."""

    outputs = ("classes",)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.to(self.dtype))
        return logits.argmax(1).to(torch.uint8 if logits.shape[1] <= BYTES else torch.int32)

    def difference(self, images: Tensor, given: Sequence[Tensor]) -> float:
        """How much likelier the network's class is than the file's, at most, over the largest magnitude of a logit."""
        (found,), logits = given, self.network(images.to(self.dtype)).float()
        if found.shape != logits[:, 0].shape or found.min() < 0 or found.max() >= logits.shape[1]:
            return math.inf
        chosen = logits.gather(1, found[:, None].long())[:, 0]
        return float((logits.amax(1) - chosen).max() / logits.abs().max())


class Maps(Graph):
    """Maps of keypoints, (B, M, h, w)."""

    outputs = ("maps",)


GRAPHS: Final[dict[type[nn.Module], dict[str, Callable[[Any], Graph]]]] = {
    Segmentor: {"logits": Logits, "classes": Classes},
    PoseEstimator: {"maps": Maps},
}


def graph_of(network: nn.Module, output: str | None) -> Graph:
    """The graph of a network, in evaluation mode.

    Args:
        output: what it is to give; None is the first of its task.

    Raises:
        InputError: a network of another kind, or one that gives no such thing.
    """
    for kind, graphs in GRAPHS.items():
        if isinstance(network, kind):
            if output is not None and output not in graphs:
                raise InputError(f"--output {output}: {kind.__name__} gives {' or '.join(graphs)}")
            graph: Graph = graphs[output or next(iter(graphs))](network).eval()
            return graph
    kinds = ", ".join(kind.__name__ for kind in GRAPHS)
    raise InputError(f"{type(network).__name__} cannot be exported (known: {kinds})")
