"""Beyond Grids: learning graph representations for visual recognition. NeurIPS 2018."""

from collections.abc import Sequence
from typing import Any

from lightning_app.blocks.beyond_grids import GraphUnits
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("beyond_grids", paper="NeurIPS 2018", year=2018)
class BeyondGrids(BlockHead):
    """reduce -> graph units -> project -> fuse -> classify.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        vertices: number of vertices of each unit.
        width: channels that each unit returns; channels // 4 if not given.
        graph: let the vertices of a unit speak.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        vertices: Sequence[int] = (2, 4, 8, 32),
        width: int | None = None,
        graph: bool = True,
        **options: Any,
    ) -> None:
        block = GraphUnits(channels, vertices=vertices, width=width, graph=graph)
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
