"""Queries that become masks: what MaskFormer and Mask2Former share. arXiv:2107.06278, arXiv:2112.01527."""

from math import gcd, pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6


class ConvGroupNorm(nn.Module):
    """Convolution and group norm (32 groups, or as many as divide the width), with a ReLU where ``act`` says so."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, act: bool = True, bias: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.norm = nn.GroupNorm(gcd(32, out_channels), out_channels)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y.relu() if self.act else y


def sine_positions(like: Tensor, channels: int) -> Tensor:
    """Sines and cosines of row and column, each in (0, 2 pi], at falling frequencies: (H W, channels)."""
    height, width = like.shape[-2:]
    half = channels // 2
    dtype = torch.promote_types(like.dtype, torch.float32)
    rank = torch.arange(half, dtype=dtype, device=like.device)
    period = 10000 ** (2 * (rank // 2) / half)

    def along(length: int) -> Tensor:
        place = torch.arange(1, length + 1, dtype=dtype, device=like.device) * (2 * pi / (length + EPS))
        angle = place[:, None] / period
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1)

    rows = along(height)[:, None].expand(-1, width, -1)
    columns = along(width)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1).to(like.dtype)


class QueryLayer(nn.Module):
    """Queries attend one another and the map, in the order given, then a feed-forward layer; each added and normalised.

    Shape: queries (B, Q, channels), their positions (1, Q, channels), tokens (B, N, channels), their positions (N,
    channels), blocked (B heads, Q, N) or none -> (B, Q, channels).

    Args:
        map_first: the map before the queries, as in Mask2Former.
    """

    def __init__(self, channels: int, heads: int, feedforward: int, *, map_first: bool) -> None:
        super().__init__()
        self.map_first = map_first
        self.self_attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.ffn = nn.Sequential(nn.Linear(channels, feedforward), nn.ReLU(), nn.Linear(feedforward, channels))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))

    def forward(
        self, queries: Tensor, positions: Tensor, tokens: Tensor, places: Tensor, blocked: Tensor | None = None
    ) -> Tensor:
        for step, of_map in enumerate((True, False) if self.map_first else (False, True)):
            asked = queries + positions
            if of_map:
                y, _ = self.cross_attention(asked, tokens + places, tokens, attn_mask=blocked, need_weights=False)
            else:
                y, _ = self.self_attention(asked, asked, queries, need_weights=False)
            queries = self.norms[step](queries + y)
        made: Tensor = self.norms[2](queries + self.ffn(queries))
        return made


def mask_embedding(channels: int, out_channels: int) -> nn.Sequential:
    """Three linear layers from a query to what its mask is a product with."""
    return nn.Sequential(
        nn.Linear(channels, channels),
        nn.ReLU(),
        nn.Linear(channels, channels),
        nn.ReLU(),
        nn.Linear(channels, out_channels),
    )


def class_maps(masks: Tensor, classes: Tensor) -> Tensor:
    """S_c = sum_q p_q(c) sigmoid(mask_q), p the softmax over the classes and "nothing", which stands last.

    Shape: masks (B, Q, H, W), classes (B, Q, K + 1) -> (B, K, H, W).
    """
    return torch.einsum("bqk,bqhw->bkhw", classes.softmax(-1)[..., :-1], masks.sigmoid())


def nearest_to(x: Tensor, like: Tensor) -> Tensor:
    """``x`` at the size of ``like``, by the nearest position."""
    return F.interpolate(x, like.shape[-2:])
