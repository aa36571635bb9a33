"""Object context: base, pyramid and atrous spatial pyramid. arXiv:1809.00916."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._attention import SelfAttention, attention, channels_last
from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, resize
from lightning_app.blocks._looks import At, Look, shrunk
from lightning_app.kernels.cutting import from_cells, to_cells
from lightning_app.registry import BLOCKS

LEAKY = 0.01  # the activation of InPlaceABN, which the authors' first code uses throughout


class ObjectContextPooling(nn.Module):
    """W y, with y_i = sum_j softmax_j(d^-1/2 q_i.k_j) v_j; W starts at 0.

    Shape: (B, C, H, W) -> (B, out_channels, H, W).

    Args:
        size: attend on the map max-pooled by this factor, and resize back with aligned corners.
        openseg: query and key apart, of two convolutions with ReLU each, as in the authors' later code; else they are
            one and the same, of one convolution with a leaky ReLU.
    """

    def __init__(
        self, channels: int, key_channels: int, value_channels: int, out_channels: int, *, size: int, openseg: bool
    ) -> None:
        super().__init__()
        self.size = size
        self.attention = SelfAttention(
            channels,
            key_channels,
            value_channels,
            depth=2 if openseg else 1,
            shared=not openseg,
            bias=True,
            slope=0.0 if openseg else LEAKY,
        )
        self.out = Conv1x1(value_channels, out_channels)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return resize(self.out(self.attention(self._pooled(x))), x.shape[-2:], align_corners=True)

    def _pooled(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, (min(self.size, x.shape[2]), min(self.size, x.shape[3]))) if self.size > 1 else x

    def looks(self, at: At, x: Tensor) -> list[Look]:
        """softmax_j(d^-1/2 q_at.k_j) of the pooled map."""
        pooled = self._pooled(x)
        place = shrunk(at, x.shape[-2:], pooled.shape[-2:], align_corners=True)
        return [Look("object context", self.attention.weights(place, pooled))]


class GridContextPooling(ObjectContextPooling):
    """The same inside each of ``size`` x ``size`` cells of floor(H / size) x floor(W / size) positions.

    The cells of the last row and column take what is left.
    """

    def forward(self, x: Tensor) -> Tensor:
        maps = self.attention.project(channels_last(x))
        rows = []
        for top, bottom, height in _bands(x.shape[2], self.size):
            row = []
            for left, right, width in _bands(x.shape[3], self.size):
                q, k, v = (to_cells(y[..., top:bottom, left:right], (height, width)) for y in maps)
                y = attention(q, k, v, self.attention.scale)
                row.append(from_cells(y, (bottom - top, right - left), (height, width)))
            rows.append(torch.cat(row, dim=3))
        context: Tensor = self.out(torch.cat(rows, dim=2))
        return context

    def looks(self, at: At, x: Tensor) -> list[Look]:
        """The same of the cell that the position stands in; 0 outside."""
        weights = x.new_zeros(x.shape[2:])
        rows, columns = (_cell(place, length, self.size) for place, length in zip(at, x.shape[2:], strict=True))
        place = at[0] - rows.start, at[1] - columns.start
        weights[rows, columns] = self.attention.weights(place, x[..., rows, columns])
        return [Look(f"object context in {self.size} x {self.size} cells", weights)]


def _bands(length: int, count: int) -> list[tuple[int, int, int]]:
    """(start, stop, length of a cell) of the even cells, and of the last one where it is longer."""
    count = min(count, length)
    cell = length // count
    if length % count == 0:
        return [(0, length, cell)]
    even = cell * (count - 1)
    return [(0, even, cell), (even, length, length - even)]


def _cell(place: int, length: int, count: int) -> slice:
    """The cell that holds a position."""
    for start, stop, cell in _bands(length, count):
        if place < stop:
            first = start + (place - start) // cell * cell
            return slice(first, first + cell)
    raise IndexError(place)


@BLOCKS.register("base_oc", paper="arXiv:1809.00916", year=2018)
class BaseOC(nn.Module):
    """out = CBR1([sum over sizes of object context, x]).

    Shape: (B, C, H, W) -> (B, out_channels, H, W). Time O(N^2 C), memory O(N C).

    Args:
        out_channels: width of the result; ``channels`` where not given. The context has ``channels`` either way.
        key_channels: width of query and key; channels // 2, at least 1, where not given.
        value_channels: width of the values; ``key_channels`` where not given.
        sizes, openseg: see ``ObjectContextPooling``; one stage per size.

    Paper: Yuan et al., OCNet. Consulted: github.com/openseg-group/OCNet.pytorch and openseg.pytorch.
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        key_channels: int | None = None,
        value_channels: int | None = None,
        sizes: Sequence[int] = (1,),
        openseg: bool = False,
    ) -> None:
        super().__init__()
        keys = max(channels // 2, 1) if key_channels is None else key_channels
        values = keys if value_channels is None else value_channels
        self.stages = nn.ModuleList(
            ObjectContextPooling(channels, keys, values, channels, size=size, openseg=openseg) for size in sizes
        )
        out = channels if out_channels is None else out_channels
        self.fuse = ConvBNReLU(2 * channels, out, bias=True, slope=0.0 if openseg else LEAKY)

    def forward(self, x: Tensor) -> Tensor:
        x = channels_last(x)
        context = sum(stage(x) for stage in self.stages)
        fused: Tensor = self.fuse(torch.cat([context, x], dim=1))
        return fused


@BLOCKS.register("pyramid_oc", paper="arXiv:1809.00916", year=2018)
class PyramidOC(nn.Module):
    """out = CBR1([CBR1(x), W_s y_s for s in sizes]), y_s attention inside each of s x s cells; W_s starts at 0.

    Cells measure floor(H / s) x floor(W / s), those of the last row and column take what is left.

    Shape: (B, C, H, W) -> (B, C, H, W).

    Args:
        sizes: cells per side, one stage each.

    Paper: Yuan et al., OCNet. Consulted: github.com/openseg-group/OCNet.pytorch.
    """

    def __init__(self, channels: int, *, sizes: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        keys = max(channels // 2, 1)
        self.stages = nn.ModuleList(
            GridContextPooling(channels, keys, channels, channels, size=size, openseg=False) for size in sizes
        )
        self.widen = ConvBNReLU(channels, len(sizes) * channels, bias=True, slope=LEAKY)
        self.fuse = ConvBNReLU(2 * len(sizes) * channels, channels, bias=True, slope=LEAKY)

    def forward(self, x: Tensor) -> Tensor:
        x = channels_last(x)
        fused: Tensor = self.fuse(torch.cat([self.widen(x), *(stage(x) for stage in self.stages)], dim=1))
        return fused


@BLOCKS.register("asp_oc", paper="arXiv:1809.00916", year=2018)
class ASPOC(nn.Module):
    """Object context on a map pooled by 2, beside a 1x1 and three dilated 3x3 convolutions: ASPP with attention.

    Shape: (B, C, H, W) -> (B, 2 branch_channels, H, W), which is C where not given otherwise.

    Args:
        branch_channels: width of each of the five branches; channels // 2 where not given.
        dilations: of the three 3x3 branches.
        openseg: the authors' later code, see ``ObjectContextPooling``; its values are half as wide, and its
            context passes no further convolution.

    Paper: Yuan et al., OCNet. Consulted: github.com/openseg-group/OCNet.pytorch and openseg.pytorch.
    """

    def __init__(
        self,
        channels: int,
        *,
        branch_channels: int | None = None,
        dilations: Sequence[int] = (12, 24, 36),
        openseg: bool = False,
    ) -> None:
        super().__init__()
        width = channels // 2 if branch_channels is None else branch_channels
        keys, slope = max(width // 2, 1), 0.0 if openseg else LEAKY
        self.local = ConvBNReLU(channels, width, 3, bias=True, slope=slope)
        self.pooling = ObjectContextPooling(width, keys, keys if openseg else width, width, size=2, openseg=openseg)
        self.tail = (
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
            if openseg
            else ConvBNReLU(width, width, bias=True, slope=slope)
        )
        self.branches = nn.ModuleList(
            [ConvBNReLU(channels, width, slope=slope)]
            + [ConvBNReLU(channels, width, 3, dilation=dilation, slope=slope) for dilation in dilations]
        )
        self.fuse = ConvBNReLU((2 + len(dilations)) * width, 2 * width, slope=slope)

    def forward(self, x: Tensor) -> Tensor:
        context = self.tail(self.pooling(self.local(x)))
        fused: Tensor = self.fuse(torch.cat([context, *(branch(x) for branch in self.branches)], dim=1))
        return fused
