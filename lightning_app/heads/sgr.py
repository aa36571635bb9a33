"""Symbolic graph reasoning meets convolutions. NeurIPS 2018."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from lightning_app.blocks.sgr import SymbolicReasoning
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("sgr", paper="NeurIPS 2018", year=2018)
class SGR(BlockHead):
    """reduce -> symbolic graph reasoning layers, one after the other -> project -> fuse -> classify.

    The paper stacks two layers of 256 channels on an ASPP; here they stand on the reduced features. Without a prior
    every class is a node.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        layers: how many layers are stacked.
        adjacency: prior graph (nodes, nodes); no edges if not given.
        embeddings: word vectors of the nodes (nodes, any width); one-hot if not given.
        mapping: "bilinear", or "additive" as in the paper, which is degenerate: see ``SymbolicReasoning``.
        graph: reason between voting and mapping back.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        layers: int = 2,
        adjacency: Sequence[Sequence[float]] | None = None,
        embeddings: Sequence[Sequence[float]] | None = None,
        mapping: Literal["bilinear", "additive"] = "bilinear",
        graph: bool = True,
        **options: Any,
    ) -> None:
        nodes = num_classes if adjacency is None and embeddings is None else None
        block = nn.Sequential(
            *(
                SymbolicReasoning(
                    channels, nodes=nodes, adjacency=adjacency, embeddings=embeddings, mapping=mapping, graph=graph
                )
                for _ in range(layers)
            )
        )
        super().__init__(in_channels, num_classes, block, channels=channels, **options)
