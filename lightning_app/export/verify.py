"""Whether an exported file gives what the network gives, at sizes that it was not made with."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lightning_app.export.graphs import Graph

Size = tuple[int, int]
SHAPES: Final[tuple[tuple[int, Size], ...]] = (  # batch and size; none is the example's, and one divides nothing
    (1, (192, 256)),
    (2, (320, 224)),
    (1, (225, 331)),
)
TOLERANCE: Final = 1e-4  # of the largest magnitude
HALF_TOLERANCE: Final = 3e-2


class Mismatch(RuntimeError):
    """The file gives something else than the network."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Args:
        batch, size: of the images.
        difference: the largest, as a share of the largest magnitude.
    """

    batch: int
    size: Size
    difference: float

    def __str__(self) -> str:
        height, width = self.size
        return f"{self.batch}x3x{height}x{width} {self.difference:.0e} ok"


def checks(
    graph: Graph, run: Callable[[Tensor], Sequence[Tensor]], shapes: Sequence[tuple[int, Size]], tolerance: float
) -> Iterator[Check]:
    """Compare on images of each shape.

    Args:
        graph: of the network itself, in single precision.
        run: runs the file.
        shapes: batch and size.
        tolerance: the largest difference, as a share of the largest magnitude.

    Raises:
        Mismatch: the file gives something else, or cannot be run at a size.
    """
    generator = torch.Generator().manual_seed(0)
    for batch, (height, width) in shapes:
        images = torch.rand(batch, 3, height, width, generator=generator)
        what = f"{batch}x3x{height}x{width}"
        try:
            given = run(images)
        except Exception as error:  # whatever a runtime raises
            reason = str(error).strip().partition("\n")[0]
            raise Mismatch(f"At {what} it cannot be run: {reason}") from error
        difference = graph.difference(images, given)
        if not difference <= tolerance:
            raise Mismatch(f"At {what} it differs from the network by {difference:.0e} of the largest value")
        yield Check(batch, (height, width), difference)
