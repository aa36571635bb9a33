"""Graph-based global reasoning networks. arXiv:1811.12814."""

from collections.abc import Sequence
from typing import Any

from lightning_app.blocks.glore import GlobalReasoning
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("glore", paper="arXiv:1811.12814", year=2019)
class GloRe(BlockHead):
    """reduce -> GloRe unit -> project -> fuse -> classify.

    The paper's segmentation network has one unit behind a reduction of the last, dilated stage.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        nodes: nodes of the graph; channels // 4 if not given.
        states: width of a node; 2 * nodes if not given.
        normalize: divide the node sums by the number of positions, as the authors ask where sizes vary.
        graph: reason between gathering and handing back.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        nodes: int | None = None,
        states: int | None = None,
        normalize: bool = True,
        graph: bool = True,
        **options: Any,
    ) -> None:
        block = GlobalReasoning(channels, nodes=nodes, states=states, normalize=normalize, graph=graph)
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
