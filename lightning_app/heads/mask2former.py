"""Mask2Former: queries that look where their masks are. arXiv:2112.01527."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.blocks._attention import to_map
from lightning_app.blocks._layers import resize
from lightning_app.blocks.deformable_attention import DeformableAttention
from lightning_app.blocks.mask_queries import ConvGroupNorm, QueryLayer, mask_embedding, sine_positions
from lightning_app.heads.maskformer import MaskHead
from lightning_app.registry import HEADS


class EncoderLayer(nn.Module):
    """Deformable attention of all levels' tokens, then a feed-forward layer; each added and normalised.

    Shape: tokens and their positions (B, N, channels), places (N, 2) -> (B, N, channels).
    """

    def __init__(self, channels: int, heads: int, levels: int, feedforward: int) -> None:
        super().__init__()
        self.attention = DeformableAttention(channels, heads, levels)
        self.ffn = nn.Sequential(nn.Linear(channels, feedforward), nn.ReLU(), nn.Linear(feedforward, channels))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))

    def forward(self, x: Tensor, positions: Tensor, places: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        x = self.norms[0](x + self.attention(x + positions, x, places, sizes))
        y: Tensor = self.norms[1](x + self.ffn(x))
        return y


class PixelDecoder(nn.Module):
    """The coarse levels attend one another; the finest is added to what they make.

    Shape: levels (B, in_channels[i], h_i, w_i), finest first -> the feature that masks are products with (B, channels,
    h_1, w_1), and the coarse levels (B, channels, h_i, w_i), coarsest first.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, layers: int, heads: int, feedforward: int) -> None:
        super().__init__()
        finest, *coarse = in_channels
        self.inputs = nn.ModuleList(
            ConvGroupNorm(width, channels, 1, act=False, bias=True) for width in reversed(coarse)
        )
        self.level_positions = nn.Parameter(torch.randn(len(coarse), channels))
        self.layers = nn.ModuleList(EncoderLayer(channels, heads, len(coarse), feedforward) for _ in range(layers))
        self.lateral = ConvGroupNorm(finest, channels, 1, act=False)
        self.out = ConvGroupNorm(channels, channels, 3)
        self.mask_feature = nn.Conv2d(channels, channels, 1)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        finest, *coarse = levels
        maps = [project(x) for project, x in zip(self.inputs, reversed(coarse), strict=True)]
        sizes = [(x.shape[-2], x.shape[-1]) for x in maps]
        own = zip(maps, self.level_positions, strict=True)
        positions = torch.cat([sine_positions(x, x.shape[1]) + position for x, position in own])
        places = torch.cat([_centres(x) for x in maps])
        tokens = torch.cat([x.flatten(2).mT for x in maps], dim=1)
        for layer in self.layers:
            tokens = layer(tokens, positions, places, sizes)
        parts = torch.split(tokens, [height * width for height, width in sizes], dim=1)
        made = [to_map(part, size) for part, size in zip(parts, sizes, strict=True)]
        lateral = self.lateral(finest)
        return self.mask_feature(self.out(lateral + resize(made[-1], lateral.shape[-2:]))), made


def _centres(x: Tensor) -> Tensor:
    """Where each position of a map is, (x, y) in 0..1: (H W, 2)."""
    height, width = x.shape[-2:]
    dtype = torch.promote_types(x.dtype, torch.float32)
    rows = (torch.arange(height, dtype=dtype, device=x.device) + 0.5) / height
    columns = (torch.arange(width, dtype=dtype, device=x.device) + 0.5) / width
    return torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width)], dim=-1).flatten(0, 1)


@HEADS.register("mask2former", paper="arXiv:2112.01527", year=2022)
class Mask2Former(MaskHead):
    """Queries attend one coarse level after another, each query only where its mask of before is.

    F, M_1, ..., M_n = pixel decoder(levels); q = layer(q, M_i + e_i, blocked where sigmoid(mask_q) < 1/2), i by turns;
    mask_q = MLP(LN(q)) . F; classes of LN(q) are linear. A query whose mask is empty looks everywhere.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the finest level it reads.

    Args:
        channels: width of everything.
        queries: how many.
        layers, heads, feedforward: of the queries' decoder.
        encoder_layers, encoder_feedforward: of the pixel decoder.
        levels: backbone levels it reads, finest first; all where not given.

    Reference: OpenMMLab's Mask2FormerHead (mmdet's).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        queries: int = 100,
        layers: int = 9,
        heads: int = 8,
        feedforward: int = 2048,
        encoder_layers: int = 6,
        encoder_feedforward: int = 1024,
        levels: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, **options)
        self.levels = tuple(range(len(in_channels)) if levels is None else levels)
        self.heads = heads
        widths = [in_channels[level] for level in self.levels]
        self.pixel_decoder = PixelDecoder(widths, channels, encoder_layers, heads, encoder_feedforward)
        self.level_embedding = nn.Parameter(torch.randn(len(widths) - 1, channels))
        self.start = nn.Parameter(torch.randn(queries, channels))
        self.positions = nn.Parameter(torch.randn(queries, channels))
        self.layers = nn.ModuleList(QueryLayer(channels, heads, feedforward, map_first=True) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.classes = nn.Linear(channels, num_classes + 1)
        self.masks = mask_embedding(channels, channels)

    def queries(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        feature, memory = self.pixel_decoder([features[level] for level in self.levels])
        feature = self.dropout(feature)
        tokens = [x.flatten(2).mT + e for x, e in zip(memory, self.level_embedding, strict=True)]
        places = [sine_positions(x, x.shape[1]) for x in memory]
        queries = self.start.expand(feature.shape[0], -1, -1)
        masks = self._masks(queries, feature)
        for i, layer in enumerate(self.layers):
            level = i % len(memory)
            blocked = self._blocked(masks, memory[level])
            queries = layer(queries, self.positions, tokens[level], places[level], blocked)
            masks = self._masks(queries, feature)
        return masks, self.classes(self.norm(queries))

    def _masks(self, queries: Tensor, feature: Tensor) -> Tensor:
        return torch.einsum("bqc,bchw->bqhw", self.masks(self.norm(queries)), feature)

    @torch.no_grad()
    def _blocked(self, masks: Tensor, like: Tensor) -> Tensor:
        """Where each query must not look, (B heads, Q, N)."""
        blocked = resize(masks, like.shape[-2:]).flatten(2).sigmoid() < 0.5
        blocked = blocked & ~blocked.all(-1, keepdim=True)
        return blocked.repeat_interleave(self.heads, dim=0)
