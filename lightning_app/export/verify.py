"""Whether an exported file gives what the network gives, at sizes that it was not made with."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lightning_app.export.graphs import Graph, Mismatch, Size

HALF_TOLERANCE: Final = 3e-2  # of the largest magnitude


@dataclass(frozen=True)
class Check:
    """One comparison.

    Args:
        batch, size: of the images.
        difference: the largest, as a share of the largest magnitude.
        found: how many things, in words.
    """

    batch: int
    size: Size
    difference: float
    found: str = ""

    def __str__(self) -> str:
        height, width = self.size
        words = (f"{self.batch}x3x{height}x{width}", self.found, f"{self.difference:.0e} ok")
        return " ".join(filter(None, words))


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
        images = graph.photographs(batch, (height, width), generator)
        what = f"{batch}x3x{height}x{width}"
        try:
            given = run(images)
        except Exception as error:  # whatever a runtime raises
            reason = str(error).strip().partition("\n")[0]
            raise Mismatch(f"At {what} it cannot be run: {reason}") from error
        try:
            difference = graph.difference(images, given)
        except Mismatch as error:
            raise Mismatch(f"At {what} {error}") from None
        if not difference <= tolerance:
            raise Mismatch(f"At {what} it differs from the network by {difference:.0e} of the largest value")
        yield Check(batch, (height, width), difference, graph.counted(given))
