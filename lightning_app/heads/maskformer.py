"""MaskFormer: queries that each give a mask and a class. arXiv:2107.06278."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import resize
from lightning_app.blocks.mask_queries import (
    ConvGroupNorm,
    QueryLayer,
    class_maps,
    mask_embedding,
    nearest_to,
    sine_positions,
)
from lightning_app.heads.base import ContextHead, Outputs
from lightning_app.registry import HEADS

EPS = 1e-6


class MaskHead(ContextHead):
    """A head whose queries give masks and classes; what it predicts is the sum of the masks by the queries' classes.

    The masks are enlarged first, then summed. In training the map is its logarithm, for losses over pixels: the papers'
    matching of queries with the masks of an image is not part of this.

    A subclass implements ``queries``.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, **options: Any) -> None:
        super().__init__(in_channels, num_classes, num_classes, **options)
        if self.refine is None:  # what comes out are class maps
            self.classifier = nn.Identity()  # type: ignore[assignment]

    def queries(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits of each query's mask (B, Q, h, w) and of its class (B, Q, num_classes + 1), "nothing" last."""
        raise NotImplementedError

    def context(self, features: Sequence[Tensor]) -> Tensor:
        masks, classes = self.queries(features)
        maps = class_maps(masks, classes)
        return (maps.float() + EPS).log() if self.training else maps

    def classify(self, x: Tensor, features: Sequence[Tensor]) -> Tensor:
        maps: Tensor = self.classifier(self.refined(x, features))
        return maps

    def at(self, features: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
        if self.refine is not None or self.training:
            return super().at(features, size)
        masks, classes = self.queries(features)
        return class_maps(resize(masks, size, self.align_corners), classes)

    def outputs(self, features: Sequence[Tensor]) -> Outputs:
        return Outputs(self(features))


@HEADS.register("maskformer", paper="arXiv:2107.06278", year=2021)
class MaskFormer(MaskHead):
    """Queries read the coarsest level through a decoder; their masks are products with a pyramid's finest level.

    y_n = CGR3(x_n), y_i = CGR3(CG1(x_i) + nearest(y_i+1)), F = conv3(y_1), CG a convolution with group norm;
    q = decoder(queries, conv1(x_n)); mask_q = MLP(q) . F; classes of q are linear.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the finest level it reads.

    Args:
        channels: width of everything.
        queries: how many.
        layers, heads, feedforward: of the decoder.
        levels: backbone levels it reads, finest first; all where not given.

    Reference: OpenMMLab's MaskFormerHead (mmdet's).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        queries: int = 100,
        layers: int = 6,
        heads: int = 8,
        feedforward: int = 2048,
        levels: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, **options)
        self.levels = tuple(range(len(in_channels)) if levels is None else levels)
        *finer, top = (in_channels[level] for level in self.levels)
        self.top = ConvGroupNorm(top, channels, 3)
        self.laterals = nn.ModuleList(ConvGroupNorm(width, channels, 1, act=False) for width in finer)
        self.outs = nn.ModuleList(ConvGroupNorm(channels, channels, 3) for _ in finer)
        self.mask_feature = nn.Conv2d(channels, channels, 3, padding=1)
        self.project = nn.Conv2d(top, channels, 1) if top != channels else nn.Identity()
        self.positions = nn.Parameter(torch.randn(queries, channels))
        self.layers = nn.ModuleList(QueryLayer(channels, heads, feedforward, map_first=False) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.classes = nn.Linear(channels, num_classes + 1)
        self.masks = mask_embedding(channels, channels)

    def queries(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        *finer, top = (features[level] for level in self.levels)
        y = self.top(top)
        for x, lateral, out in reversed(list(zip(finer, self.laterals, self.outs, strict=True))):
            own = lateral(x)
            y = out(own + nearest_to(y, own))
        feature = self.dropout(self.mask_feature(y))
        memory = self.project(top)
        tokens, places = memory.flatten(2).mT, sine_positions(memory, memory.shape[1])
        positions = self.positions.expand(top.shape[0], -1, -1)
        queries = torch.zeros_like(positions)
        for layer in self.layers:
            queries = layer(queries, positions, tokens, places)
        queries = self.norm(queries)
        return torch.einsum("bqc,bchw->bqhw", self.masks(queries), feature), self.classes(queries)
