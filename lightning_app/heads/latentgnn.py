"""LatentGNN. arXiv:1905.11634."""

from collections.abc import Sequence
from typing import Any, Literal

from lightning_app.blocks.latentgnn import LatentGraph
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("latentgnn", paper="arXiv:1905.11634", year=2019)
class LatentGNN(BlockHead):
    """reduce -> latent graph block -> project -> fuse -> classify.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        nodes: latent nodes of each kernel.
        stride: the reduced features have channels // stride channels.
        mode: "symmetric" or "asymmetric" assignments.
        graph_conv: a convolution on each kernel's visible features.
        graph: messages between the latent nodes.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        nodes: Sequence[int] = (100,),
        stride: int = 4,
        mode: Literal["symmetric", "asymmetric"] = "asymmetric",
        graph_conv: bool = False,
        graph: bool = True,
        **options: Any,
    ) -> None:
        block = LatentGraph(channels, nodes=nodes, stride=stride, mode=mode, graph_conv=graph_conv, graph=graph)
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
