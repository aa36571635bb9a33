"""Generalized attention: what two positions hold, and how far they are apart. arXiv:1904.05873."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_app import kernels
from lightning_app.blocks._attention import to_map
from lightning_app.blocks._layers import Conv1x1
from lightning_app.kernels.attention import attend
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError, check_choice

Term = Literal["query_key", "query_position", "key", "position"]
TERMS: tuple[Term, ...] = get_args(Term)
WAVE_LENGTH = 1000


@BLOCKS.register("generalized_attention", paper="arXiv:1904.05873", year=2019)
class GeneralizedAttentionBlock(nn.Module):
    """Attention whose weights have up to four terms, of content and of relative position.

    out = x + gamma W_o y,  y_i = sum_j softmax_j(e_ij) v_j,  each head with
    e_ij = q_i.k_j [query_key] + q_i.r_ij [query_position] + u.k_j [key] + w.r_ij [position],

    u and w learned vectors, j every ``kv_stride``-th position, and r_ij = (F_x(x_i - x_j) + F_y(y_i - y_j)) / sqrt(2)
    with F linear in the sines and cosines of the difference over 1000^(4 k / C), k < C / 4. gamma starts at 0.

    Each of r's two summands takes few values: in front of the columns and rows of j they become w_kv + h_kv more
    channels of the query, whose key is the unit vector of j's column and of its row. So no N x M map is held. With
    "key" alone all positions get one vector.

    Shape: (B, C, H, W) -> (B, C, H, W). Time O(N M C), memory O(N (C + heads (w_kv + h_kv))).

    Args:
        heads: each of channels // heads; the heads need not divide the channels.
        kv_stride: every so many-th row and column is attended to.
        terms: of the weights: "query_key", "query_position", "key", "position", any of them.
        transposed: read the query of the vertical query_position term at the position with x and y exchanged, as the
            reference does without the "position" term, and GRoIE's weights were trained so. For square maps.

    Raises:
        InputError: channels that 4 does not divide, fewer than the heads, no or unknown terms; ``transposed`` on a map
            that is not square.

    Paper: Zhu et al., An Empirical Study of Spatial Attention Mechanisms in Deep Networks, ICCV 2019. Consulted: mmcv
    2.1 GeneralizedAttention.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 8,
        kv_stride: int = 2,
        terms: Sequence[Term] = TERMS,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        for term in terms:
            check_choice("terms", term, TERMS)
        if not terms:
            raise InputError(f"terms is empty: give one or more of {', '.join(TERMS)}")
        if channels % 4 or channels < heads:
            raise InputError(f"channels is {channels}: it must be a multiple of 4, and not less than heads={heads}")
        self.heads, self.kv_stride, self.transposed = heads, kv_stride, transposed
        self.terms = frozenset(terms)
        self.width = channels // heads
        inner = self.width * heads
        asks = self.terms & {"query_key", "query_position"}
        self.query = Conv1x1(channels, inner, bias=False) if asks else None
        self.key = Conv1x1(channels, inner, bias=False) if self.terms & {"query_key", "key"} else None
        self.value = Conv1x1(channels, inner, bias=False)
        places = self.terms & {"query_position", "position"}
        self.position_x = nn.Linear(channels // 2, inner, bias=False) if places else None
        self.position_y = nn.Linear(channels // 2, inner, bias=False) if places else None
        self.key_bias = self._vector() if "key" in self.terms else None
        self.position_bias = self._vector() if "position" in self.terms else None
        self.project = Conv1x1(inner, channels)
        self.gamma = nn.Parameter(torch.zeros(1))
        for layer in self.children():
            nn.init.kaiming_uniform_(layer.weight, a=1)  # type: ignore[arg-type]
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        if kernels.is_fast():
            return self.fast(x)
        to = x[..., :: self.kv_stride, :: self.kv_stride]
        content, columns, rows = self.parts(x, to)
        energy = x.new_zeros(())
        if content is not None and self.key is not None:
            energy = torch.einsum("bndi,bndj->bnij", content, self._split(self.key(to)))  # (B, heads, N, M)
        if columns is not None and rows is not None:
            energy = energy + (columns[..., None, :] + rows[..., :, None]).flatten(3)
        weights = energy.softmax(3)
        y = torch.einsum("bnij,bndj->bndi", weights.to(x.dtype), self._split(self.value(to))).flatten(1, 2)
        return self._finish(x, y)

    def fast(self, x: Tensor) -> Tensor:
        """The same by one product of queries and keys, which hold the positions as channels."""
        to = x[..., :: self.kv_stride, :: self.kv_stride]
        content, columns, rows = self.parts(x, to)
        queries, keys = [], []
        if content is not None and self.key is not None:
            queries.append(content.mT)
            keys.append(self._split(self.key(to)).mT)
        if columns is not None and rows is not None:
            height, width = to.shape[-2:]
            of_row, of_column = (torch.arange(side, device=x.device) for side in (height, width))
            places = torch.meshgrid(of_row, of_column, indexing="ij")
            for part, place in ((columns, places[1]), (rows, places[0])):
                number = place.flatten()
                unit = (number[:, None] == torch.arange(part.shape[3], device=x.device)).to(part.dtype)
                queries.append(part)
                keys.append(unit.expand(*part.shape[:2], -1, -1))
        query, key = (torch.cat(each, dim=3).flatten(0, 1).contiguous() for each in (queries, keys))
        value = self._split(self.value(to)).mT.flatten(0, 1).contiguous()
        y = attend(query, key, value, 1.0)
        return self._finish(x, y.mT.reshape(x.shape[0], self.heads * self.width, y.shape[1]))

    def parts(self, x: Tensor, to: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """What each position asks of the content (B, heads, d, N), of the columns and of the rows (B, heads, N, ...).

        N is 1 where all positions ask the same. Without a term of content, or of position, None.
        """
        query = None if self.query is None else self._split(self.query(x))
        content = None if self.key is None else self._asked(x, query, "query_key", self.key_bias)
        if self.position_x is None:
            return content, None, None
        count = x.shape[2] * x.shape[3]
        asked = self._asked(x, query, "query_position", self.position_bias).expand(-1, -1, -1, count)
        columns, rows = self._positions(asked.reshape(*asked.shape[:3], *x.shape[2:]), to)
        return None if content is None else content.expand(-1, -1, -1, count), columns, rows

    def _asked(self, x: Tensor, query: Tensor | None, term: Term, bias: Tensor | None) -> Tensor:
        """The query of one kind of term, (B, heads, d, N); N is 1 where all positions ask the same."""
        nothing = x.new_zeros(x.shape[0], self.heads, self.width, 1)
        asked = query if query is not None and term in self.terms else nothing
        return asked if bias is None else asked + bias.view(self.heads, -1, 1)

    def _positions(self, asked: Tensor, to: Tensor) -> tuple[Tensor, Tensor]:
        """q_i.F_x and q_i.F_y for each column and row that is attended to, from (B, heads, d, H, W)."""
        height, width = asked.shape[-2:]
        vertical = asked
        if self.transposed:
            if height != width:
                raise InputError(f"transposed is for square maps, and this one is {height} x {width}")
            vertical = asked.mT
        x, y = self._features(width, to.shape[-1], asked), self._features(height, to.shape[-2], asked)
        assert self.position_x is not None
        assert self.position_y is not None
        columns = torch.einsum("bndyx,xknd->bnyxk", asked, self._heads(self.position_x(x)))
        rows = torch.einsum("bndyx,yknd->bnyxk", vertical, self._heads(self.position_y(y)))
        return columns.flatten(2, 3), rows.flatten(2, 3)

    def _features(self, count: int, attended: int, like: Tensor) -> Tensor:
        """Sines and cosines of the differences between positions on one axis: (count, attended, C / 2)."""
        size = self.position_x.in_features // 2 if self.position_x is not None else 0
        dtype = torch.promote_types(like.dtype, torch.float32)
        places = torch.arange(count, device=like.device, dtype=dtype)[:, None]
        difference = places - self.kv_stride * torch.arange(attended, device=like.device, dtype=dtype)
        angle = difference[..., None] / WAVE_LENGTH ** (torch.arange(size, device=like.device, dtype=dtype) / size)
        return torch.cat([angle.sin(), angle.cos()], dim=2).to(self.project.weight.dtype)

    def _heads(self, positions: Tensor) -> Tensor:
        return (positions / math.sqrt(2)).view(*positions.shape[:2], self.heads, self.width)

    def _split(self, x: Tensor) -> Tensor:
        """(B, heads d, h, w) -> (B, heads, d, h w)."""
        return x.reshape(x.shape[0], self.heads, self.width, x.shape[2] * x.shape[3])  # there may be no map at all

    def _finish(self, x: Tensor, y: Tensor) -> Tensor:
        """x + gamma W_o y, where y (B, heads d, N) may hold one position for all."""
        size = x.shape[2:] if y.shape[2] > 1 else (1, 1)
        out: Tensor = x + self.gamma * self.project(to_map(y.mT, size))
        return out

    def _vector(self) -> nn.Parameter:
        bound = 1 / math.sqrt(2 * self.width)
        return nn.Parameter(torch.empty(self.heads * self.width).uniform_(-bound, bound))
