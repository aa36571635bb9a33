"""Interlaced sparse self-attention. arXiv:1907.12273."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._attention import SelfAttention, channels_last
from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.blocks._looks import At, Look
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
        edges = self._edges(x)
        x = F.pad(x, edges)
        size = (x.shape[2], x.shape[3])
        x = from_cells(self.near_out(self.near(to_cells(self._far(x), self.cell))), size, self.cell)
        return F.pad(x, tuple(-edge for edge in edges))

    def _edges(self, x: Tensor) -> tuple[int, int, int, int]:
        """The zeros that make whole cells: left, right, above and below."""
        down, right = (-x.shape[2] % self.cell[0], -x.shape[3] % self.cell[1])
        return right // 2, right - right // 2, down // 2, down - down // 2

    def _far(self, x: Tensor) -> Tensor:
        """The first of the two, of a padded map."""
        far = self.far_out(self.far(to_cells(x, self.cell, across=True)))
        return from_cells(far, (x.shape[2], x.shape[3]), self.cell, across=True)

    def looks(self, at: At, x: Tensor) -> list[Look]:
        """The position's cell, and where each position of that cell looks; what falls on the padding is left out."""
        left, right, top, bottom = self._edges(x)
        (h, w), x = self.cell, F.pad(x, (left, right, top, bottom))
        row, column = at[0] + top, at[1] + left
        rows, columns = (
            slice(place // side * side, place // side * side + side) for place, side in ((row, h), (column, w))
        )
        near, through = x.new_zeros(x.shape[2:]), x.new_zeros(x.shape[2:])
        near[rows, columns] = self.near.weights((row % h, column % w), self._far(x)[..., rows, columns])
        for i in range(h):
            for j in range(w):
                share = near[rows.start + i, columns.start + j]
                through[i::h, j::w] += share * self.far.weights((row // h, column // w), x[..., i::h, j::w])
        inside = slice(top, x.shape[2] - bottom), slice(left, x.shape[3] - right)
        return [Look("its cell", near[inside]), Look("through its cell", through[inside])]


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
