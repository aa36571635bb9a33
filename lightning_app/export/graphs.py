"""What is exported of a network: tensors in, tensors out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

Size = tuple[int, int]
INPUT: Final = "images"
AXES: Final = {0: "batch", 2: "height", 3: "width"}  # that are free
BYTES: Final = 256  # classes that a byte tells apart
SHAPES: Final[tuple[tuple[int, Size], ...]] = (  # batch and size; none is the example's, and one divides nothing
    (1, (192, 256)),
    (2, (320, 224)),
    (1, (225, 331)),
)


class Mismatch(RuntimeError):
    """A file gives something else than the network."""


class Graph(nn.Module):
    """A network whose images come, and whose results leave, in single precision, whatever it computes in.

    Shape: RGB images (B, 3, H, W) in 0..1 -> what the network gives.

    Attributes:
        outputs: names of what it gives.
        axes: of the images that are free, by name.
        tolerance: the largest difference, as a share of the largest magnitude.
    """

    outputs: tuple[str, ...] = ("output",)
    axes: Mapping[int, str] = AXES
    tolerance = 1e-4

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.dtype = next((each.dtype for each in network.parameters() if each.is_floating_point()), torch.float32)

    def forward(self, images: Tensor) -> Any:
        result: Tensor = self.network(images.to(self.dtype))
        return result.float()

    def facts(self) -> dict[str, Any]:
        """What a file says of what goes in and comes out."""
        return {
            "input": "RGB images (batch, 3, height, width), float32 in 0..1; normalised inside",
            "mean": list(self.network.backbone.mean),
            "std": list(self.network.backbone.std),
        }

    def taken(self, size: Size | None) -> Size | None:
        """The size that the file is to take alone, if one, where this one was asked for.

        Raises:
            InputError: it gives nothing for this size.
        """
        return size

    def shapes(self, size: Size | None) -> Sequence[tuple[int, Size]]:
        """Batches and sizes at which a file is compared."""
        return [(1, size), (2, size)] if size else SHAPES

    def photographs(self, batch: int, size: Size, generator: torch.Generator) -> Tensor:
        """What a file is compared on."""
        return torch.rand(batch, 3, *size, generator=generator)

    def difference(self, images: Tensor, given: Sequence[Tensor]) -> float:
        """How far a file's results are from the network's: the largest difference over the largest magnitude.

        Raises:
            Mismatch: they cannot be compared.
        """
        wanted, (found,) = self(images), given
        if wanted.shape != found.shape or wanted.dtype != found.dtype:
            return math.inf
        return float((wanted - found).abs().max() / wanted.abs().max())

    def counted(self, given: Sequence[Tensor]) -> str:
        """How many things a file found, in words; nothing where there is one for each pixel."""
        return ""


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
