"""Interlaced sparse self-attention. arXiv:1907.12273."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._attention import SelfAttention, channels_last
from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.kernels.cutting import from_cells, to_cells
from lightning_app.registry import BLOCKS


class InterlacedAttention(nn.Module):
    """Attention among the positions of equal place in their cells, then among the positions of each cell.

    y = CBR1(attend(x | groups)) twice, the map cut into cells of ``cell`` = (h, w) positions: first one group per place
    in a cell (far apart), then one group per cell (near). Zeros pad the map to whole cells, half on each side, and
    take part in the softmax.

    Shape: (B, C, H, W) -> (B, C', H, W). Time O(N C (N / (h w) + h w)).

    Args:
        value_bias: give the values a bias.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        key_channels: int,
        value_channels: int,
        cell: tuple[int, int] = (8, 8),
        *,
        value_bias: bool = True,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.far = SelfAttention(channels, key_channels, value_channels, depth=2, value_bias=value_bias)
        self.far_out = ConvBNReLU(value_channels, out_channels)
        self.near = SelfAttention(out_channels, key_channels, value_channels, depth=2, value_bias=value_bias)
        self.near_out = ConvBNReLU(value_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        (height, width), (h, w) = x.shape[-2:], self.cell
        size = ((height + h - 1) // h * h, (width + w - 1) // w * w)
        down, right = size[0] - height, size[1] - width
        top, left = down // 2, right // 2
        x = F.pad(x, (left, right - left, top, down - top))
        x = self.far_out(self.far(to_cells(x, self.cell, across=True)))
        x = to_cells(from_cells(x, size, self.cell, across=True), self.cell)
        x = from_cells(self.near_out(self.near(x)), size, self.cell)
        return F.pad(x, (-left, left - right, -top, top - down))


@BLOCKS.register("isanet", paper="arXiv:1907.12273", year=2019)
class InterlacedSparseSelfAttention(nn.Module):
    """out = CBR1([interlaced attention of x, x]), the sparse stand-in for attention between all positions.

    With several cell sizes their results stand side by side, and x passes a CBR1 to their joint width first.

    Shape: (B, C, H, W) -> (B, C, H, W). Time O(N^1.5 C) where cells have about sqrt(N) positions.

    Args:
        key_channels: width of query and key; channels // 2, at least 1, where not given.
        value_channels: width of the values; ``channels`` where not given.
        cells: (height, width) of the cells, in positions.
        value_bias: give the values a bias.

    Paper: Huang et al., Interlaced Sparse Self-Attention, 2019. Consulted: github.com/openseg-group/openseg.pytorch.
    """

    def __init__(
        self,
        channels: int,
        *,
        key_channels: int | None = None,
        value_channels: int | None = None,
        cells: Sequence[tuple[int, int]] = ((8, 8),),
        value_bias: bool = True,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        out = out_channels or channels
        key_channels = key_channels or max(channels // 2, 1)
        self.stages = nn.ModuleList(
            InterlacedAttention(channels, out, key_channels, value_channels or channels, cell, value_bias=value_bias)
            for cell in cells
        )
        self.widen = ConvBNReLU(channels, len(cells) * out) if len(cells) > 1 else None
        width = channels if self.widen is None else len(cells) * out
        self.fuse = ConvBNReLU(len(cells) * out + width, out)

    def forward(self, x: Tensor) -> Tensor:
        x = channels_last(x)
        context = [stage(x) for stage in self.stages]
        own = x if self.widen is None else self.widen(x)
        fused: Tensor = self.fuse(torch.cat([*context, own], dim=1))
        return fused
