"""What stands between a backbone and the heads, where weights were trained with it: levels in, levels out."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, SeparableConvBNReLU, resize
from lightning_app.util.errors import InputError, suggest


class Neck(nn.Module):
    """Levels (B, channels_in[i], h_i, w_i) -> levels (B, channels[i], h'_i, w'_i).

    Attributes:
        channels: width of each level that comes out.
        scales: size of each level that comes out over that of the level that went in.
    """

    channels: list[int]
    scales: list[float]

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        raise NotImplementedError


class Feature2Pyramid(Neck):
    """A pyramid out of a plain transformer's levels, which all have one size.

    Level i is enlarged by transposed convolutions or reduced by a maximum: x4, x2, x1, x1/2.

    Shape: levels (B, C, h, w) -> levels (B, C, scales[i] h, scales[i] w).

    Reference: BEiT, arXiv:2106.08254; OpenMMLab's Feature2Pyramid.
    """

    def __init__(self, channels: Sequence[int], *, scales: Sequence[float] = (4, 2, 1, 0.5)) -> None:
        super().__init__()
        if len(scales) != len(channels):
            raise InputError(f"neck: scales {list(scales)} must be as many as the levels, {len(channels)}")
        self.channels, self.scales = list(channels), list(scales)
        steps = [self._step(width, scale) for width, scale in zip(channels, scales, strict=True)]
        self.steps = nn.ModuleList(steps)

    @staticmethod
    def _step(width: int, scale: float) -> nn.Module:
        def double() -> nn.Module:
            return nn.ConvTranspose2d(width, width, 2, 2)

        steps: dict[float, nn.Module] = {
            4: nn.Sequential(double(), nn.BatchNorm2d(width), nn.GELU(), double()) if scale == 4 else nn.Identity(),
            2: double() if scale == 2 else nn.Identity(),
            1: nn.Identity(),
            0.5: nn.MaxPool2d(2),
            0.25: nn.MaxPool2d(4),
        }
        if scale not in steps:
            raise InputError(f"neck: a scale is {scale}: it must be one of {', '.join(map(str, steps))}")
        return steps[scale]

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        return [step(x) for step, x in zip(self.steps, levels, strict=True)]


class MultiLevelNeck(Neck):
    """A pyramid by resizing: out_i = conv3(resize(conv1(x_i))).

    Shape: levels (B, channels_in[i], h, w) -> levels (B, out_channels, scales[i] h, scales[i] w).

    Reference: OpenMMLab's MultiLevelNeck.
    """

    def __init__(
        self, channels: Sequence[int], *, out_channels: int | None = None, scales: Sequence[float] = (4, 2, 1, 0.5)
    ) -> None:
        super().__init__()
        if len(scales) != len(channels):
            raise InputError(f"neck: scales {list(scales)} must be as many as the levels, {len(channels)}")
        width = out_channels or channels[0]
        self.channels, self.scales = [width] * len(channels), list(scales)
        self.laterals = nn.ModuleList(Conv1x1(each, width) for each in channels)
        self.outs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        made = []
        for x, lateral, out, scale in zip(levels, self.laterals, self.outs, self.scales, strict=True):
            x = lateral(x)
            made.append(out(x if scale == 1 else F.interpolate(x, scale_factor=scale, mode="bilinear")))
        return made


class MultiLevelAggregation(Neck):
    """Each level is given all deeper ones: y_i = CBR3(sum_{j >= i} CBR1(LN(x_j))), the deepest first.

    Shape: levels (B, channels_in[i], h, w) -> levels (B, out_channels, h, w).

    Reference: SETR, arXiv:2012.15840; OpenMMLab's MLANeck.
    """

    def __init__(self, channels: Sequence[int], *, out_channels: int = 256) -> None:
        super().__init__()
        self.channels, self.scales = [out_channels] * len(channels), [1.0] * len(channels)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for width in channels)
        self.laterals = nn.ModuleList(ConvBNReLU(width, out_channels) for width in channels)
        self.outs = nn.ModuleList(ConvBNReLU(out_channels, out_channels, 3) for _ in channels)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        laterals = [
            lateral(norm(x.movedim(1, -1)).movedim(-1, 1))
            for x, norm, lateral in zip(levels, self.norms, self.laterals, strict=True)
        ]
        return [out(x) for out, x in zip(self.outs, accumulate(reversed(laterals), torch.add), strict=True)]


class CascadeFusion(Neck):
    """Three branches, the coarsest handed to the next and that to the finest.

    l_2 = CBR3(up(x_3)), dilated by 2, f_2 = l_2 + CBR1(x_2); l_1 and f_1 of f_2 and x_1 likewise.

    Shape: (B, channels[i], h_i, w_i), three of them, finest first -> l_2, l_1 and f_1, (B, out_channels, h, w) of x_2,
    x_1 and x_1.

    Reference: ICNet, arXiv:1704.08545; OpenMMLab's ICNeck.
    """

    def __init__(self, channels: Sequence[int], *, out_channels: int = 128, align_corners: bool = False) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.align_corners = align_corners
        self.channels, self.scales = [out_channels] * 3, [0.5, 2, 4]
        self.low_middle = ConvBNReLU(coarse, out_channels, 3, dilation=2)
        self.high_middle = ConvBNReLU(middle, out_channels)
        self.low_fine = ConvBNReLU(out_channels, out_channels, 3, dilation=2)
        self.high_fine = ConvBNReLU(fine, out_channels)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        fine, middle, coarse = levels
        low_middle = self.low_middle(resize(coarse, middle.shape[-2:], self.align_corners))
        fused = low_middle + self.high_middle(middle)
        low_fine = self.low_fine(resize(fused, fine.shape[-2:], self.align_corners))
        return [low_middle, low_fine, low_fine + self.high_fine(fine)]


class JointPyramid(Neck):
    """The deepest level at the size of the first: y = [S_1(z), ..., S_n(z)], z = [CBR3(x_0), up(CBR3(x_1)), ...].

    S_d is a 3x3 depthwise convolution of dilation d with BN, and a 1x1 with BN and ReLU. The other levels stay.

    Shape: levels (B, channels_in[i], h_i, w_i) -> the same, but for the last: (B, n * width, h_0, w_0).

    Args:
        width: of each convolution.
        dilations: d for each branch.

    Reference: FastFCN, arXiv:1903.11816; OpenMMLab's JPU.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        width: int = 512,
        dilations: Sequence[int] = (1, 2, 4, 8),
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.channels = [*channels[:-1], width * len(dilations)]
        self.scales = [1.0] * (len(channels) - 1) + [2.0 ** (len(channels) - 1)]
        self.laterals = nn.ModuleList(ConvBNReLU(each, width, 3) for each in channels)
        self.branches = nn.ModuleList(
            SeparableConvBNReLU(width * len(channels), width, 3, dilation=dilation, slope=None)
            for dilation in dilations
        )

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        size = levels[0].shape[-2:]
        laterals = [lateral(x) for lateral, x in zip(self.laterals, levels, strict=True)]
        joint = torch.cat([resize(x, size, self.align_corners) for x in laterals], dim=1)
        return [*levels[:-1], torch.cat([branch(joint) for branch in self.branches], dim=1)]


NECKS: Mapping[str, type[Neck]] = {
    "feature2pyramid": Feature2Pyramid,
    "multilevel": MultiLevelNeck,
    "mla": MultiLevelAggregation,
    "cascade": CascadeFusion,
    "joint": JointPyramid,
}


def new_neck(spec: Mapping[str, Any], channels: Sequence[int]) -> Neck:
    """The neck of that "name", with its other arguments, for levels of these widths.

    Raises:
        InputError: an unknown name or argument.
    """
    arguments = dict(spec)
    name = arguments.pop("name", None)
    if name not in NECKS:
        hint = suggest(str(name), NECKS)
        raise InputError(f'neck: unknown name "{name}".{hint} Known: {", ".join(NECKS)}, as in {{name: multilevel}}')
    try:
        return NECKS[name](channels, **arguments)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"neck {name} cannot be built from {arguments}: {error}") from error
