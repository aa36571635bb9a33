"""Point-wise spatial attention. ECCV 2018."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._attention import channels_last, to_map, tokens
from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, resize
from lightning_app.blocks._looks import At, Look, shrunk
from lightning_app.kernels.products import conv1x1, matmul
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError

MODES = ("collect", "distribute", "bidirection")


@BLOCKS.register("psanet", paper="ECCV 2018", year=2018)
class PointwiseSpatialAttention(nn.Module):
    """Attention weights that each position predicts from its own features, for positions relative to itself.

    On a map f shrunk to n positions, position i predicts m_i(offset), one number per offset in the mask (0 outside):

    - collect: y_i = sum_j softmax_j(m_i(j - i)) f_j, what i gathers;
    - distribute: y_i = sum_j softmax_j(m_j(i - j)) f_j, what others hand to i;
    - bidirection: both, each with its own f and m, side by side.

    out = CBR1(y), resized back; where shrink_factor divides neither side, as for 97 x 97 and 2, with aligned corners.

    Shape: (B, C, H, W) -> (B, C, H, W). Time and memory O(n^2 C), n = H W / shrink_factor^2.

    Args:
        inner: width of f; channels // 4 where not given.
        mask_size: (height, width) of the mask. A mask of (2h - 1, 2w - 1) reaches everywhere on an h x w map.
        compact: predict one number per position of the shrunken map instead, which must then have ``mask_size``.
            Collecting reads a position's own numbers, distributing those of the others.
        softmax: normalise the weights; the paper's text does not.
        normalization_factor: divisor of y; the area of the mask where ``None``.
        padding: zeros around y in front of the last 1x1 convolution, which OpenMMLab's weights were trained with.
        align_corners: of the resize back where nothing shrinks, which only ``padding`` makes necessary.

    Raises:
        InputError: unknown mode; a compact mask of another size than the map.

    Paper: Zhao et al., PSANet, ECCV 2018. Consulted: github.com/hszhao/semseg.
    """

    def __init__(
        self,
        channels: int,
        *,
        inner: int | None = None,
        mode: str = "bidirection",
        mask_size: tuple[int, int] = (97, 97),
        compact: bool = False,
        shrink_factor: int = 2,
        softmax: bool = True,
        normalization_factor: float | None = 1.0,
        padding: int = 0,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise InputError(f"Unknown mode {mode!r} of point-wise spatial attention: one of {', '.join(MODES)}.")
        inner = max(channels // 4, 1) if inner is None else inner
        self.mask_size, self.compact, self.shrink_factor = tuple(mask_size), compact, shrink_factor
        area = mask_size[0] * mask_size[1]
        self.softmax, self.factor = softmax, normalization_factor or area
        self.padding, self.align_corners = padding, align_corners
        self.directions = MODES[:2] if mode == "bidirection" else (mode,)
        self.reduce = nn.ModuleList(ConvBNReLU(channels, inner) for _ in self.directions)
        self.attention = nn.ModuleList(
            nn.Sequential(ConvBNReLU(inner, inner), Conv1x1(inner, area, bias=False)) for _ in self.directions
        )
        self.proj = ConvBNReLU(inner * len(self.directions), channels)

    def forward(self, x: Tensor) -> Tensor:
        size, align_corners = self._shrunken(x)
        x = channels_last(x)
        branches = zip(self.directions, self.reduce, self.attention, strict=True)
        y = [self._aggregate(d, resize(reduce(x), size, align_corners), attention) for d, reduce, attention in branches]
        out = self.proj(F.pad(torch.cat(y, dim=1), (self.padding,) * 4))
        return resize(out, x.shape[-2:], align_corners)

    def _shrunken(self, x: Tensor) -> tuple[tuple[int, int], bool]:
        """Size of the map that attends, and whether its corners are those of ``x``."""
        (height, width), s = x.shape[-2:], self.shrink_factor
        if s == 1:
            return (height, width), self.align_corners
        if height % s and width % s:
            return ((height - 1) // s + 1, (width - 1) // s + 1), True
        return (max(height // s, 1), max(width // s, 1)), False

    def _aggregate(self, direction: str, f: Tensor, attention: nn.Module) -> Tensor:
        """y of one direction."""
        return to_map(matmul(self._weights(direction, f, attention), tokens(f)), f.shape[-2:]) / self.factor

    def _weights(self, direction: str, f: Tensor, attention: nn.Module) -> Tensor:
        """Of each position the weights of all, (B, n, n), in front of the division."""
        embed, predict = attention.children()
        assert isinstance(predict, nn.Conv2d)
        if not self.compact:
            weights = self._by_position(embed(f), predict.weight)
        elif tuple(f.shape[-2:]) == self.mask_size:
            weights = tokens(predict(embed(f)))
        else:
            raise InputError(
                f"A compact mask of {self.mask_size} cannot serve a map of {tuple(f.shape[-2:])}: "
                "set mask_size to the map's size or compact to false."
            )
        if direction == "distribute":
            weights = weights.transpose(1, 2)
        return weights.softmax(-1).to(f.dtype) if self.softmax else weights

    def looks(self, at: At, x: Tensor) -> list[Look]:
        """What the position gathers, and what others hand to it, on the shrunken map."""
        size, align_corners = self._shrunken(x)
        row, column = shrunk(at, x.shape[-2:], size, align_corners=align_corners)
        looks = []
        for direction, reduce, attention in zip(self.directions, self.reduce, self.attention, strict=True):
            weights = self._weights(direction, resize(reduce(x), size, align_corners), attention)
            own = weights[0, row * size[1] + column].view(size)
            looks.append(Look(direction, own, "share" if self.softmax else "signed"))
        return looks

    def _by_position(self, embedded: Tensor, weight: Tensor) -> Tensor:
        """What each position predicts for each other: (B, inner, h, w) -> (B, n, n), 0 for those outside its mask."""
        height, width = embedded.shape[-2:]
        rows, row, row_inside = _offsets(height, self.mask_size[0], weight.device)
        columns, column, column_inside = _offsets(width, self.mask_size[1], weight.device)
        reached = weight.reshape(*self.mask_size, *weight.shape[1:])[rows, columns]
        own = tokens(conv1x1(embedded, reached.flatten(0, 1)))
        index = row[:, None, :, None] * reached.shape[1] + column[None, :, None, :]
        inside = row_inside[:, None, :, None] & column_inside[None, :, None, :]
        shape = (1, height * width, height * width)
        index = index.where(inside, 0).reshape(shape).expand(own.shape[0], -1, -1)
        return own.gather(2, index).masked_fill(~inside.reshape(shape), 0)


def _offsets(length: int, mask: int, device: torch.device) -> tuple[slice, Tensor, Tensor]:
    """Along one side: the part of the mask that stays on the map; for positions i, j where in it j - i lies, and if."""
    half = (mask - 1) // 2
    start, stop = max(0, half - length + 1), min(mask, half + length)
    position = torch.arange(length, device=device)
    index = position - position[:, None] + half - start
    return slice(start, stop), index, (index >= 0) & (index < stop - start)
