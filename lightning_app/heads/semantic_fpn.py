"""Semantic FPN. arXiv:1901.02446."""

from collections.abc import Sequence
from math import log2
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, resize
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS
from lightning_app.util.errors import InputError


class FPN(nn.Module):
    """Feature pyramid: t_i = conv1(x_i) + nearest(t_i+1), out_i = conv3(t_i).

    Shape: levels (B, in_channels[i], h_i, w_i) -> levels (B, channels, h_i, w_i).

    Reference: arXiv:1612.03144.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(Conv1x1(width, channels) for width in in_channels)
        self.outs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        laterals = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], laterals[i - 1].shape[-2:])
        return [out(x) for out, x in zip(self.outs, laterals, strict=True)]


@HEADS.register("semantic_fpn", paper="arXiv:1901.02446", year=2019)
class SemanticFPN(ContextHead):
    """A feature pyramid whose levels are brought to the finest stride and summed.

    p = FPN(levels); y_i = p_i after as many [CBR3, up x2] as it takes to reach the finest stride, and CBR3 for the
    finest; logits = classify(sum_i y_i).

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the finest level it reads.

    Args:
        fpn_channels: width of the feature pyramid; 0 = the levels come from one.
        strides: stride of each level it reads, pixels.
        levels: backbone levels it reads, finest first; all where not given.

    Raises:
        InputError: not one stride for each level.

    Reference: OpenMMLab's FPNHead and FPN.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 128,
        fpn_channels: int = 256,
        strides: Sequence[int] | None = None,
        levels: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.levels = tuple(range(len(in_channels)) if levels is None else levels)
        strides = [4 * 2**i for i in range(len(self.levels))] if strides is None else list(strides)
        if len(strides) != len(self.levels):
            raise InputError(
                f"SemanticFPN reads {len(self.levels)} levels but got strides={strides}: give one for each"
            )
        widths = [in_channels[level] for level in self.levels]
        self.fpn = FPN(widths, fpn_channels) if fpn_channels else None
        self.branches = nn.ModuleList()
        for width, stride in zip(widths, strides, strict=True):
            steps = max(round(log2(stride / strides[0])), 1)
            inputs = [fpn_channels or width] + [channels] * (steps - 1)
            self.branches.append(nn.Sequential(*(ConvBNReLU(i, channels, 3) for i in inputs)))
        self.upsampled = tuple(stride != strides[0] for stride in strides)

    def pyramid(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The levels of the feature pyramid, (B, fpn_channels, h_i, w_i)."""
        levels = [features[level] for level in self.levels]
        return levels if self.fpn is None else self.fpn(levels)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        return self.summed(self.pyramid(features))

    def summed(self, levels: Sequence[Tensor]) -> Tensor:
        """The sum of the pyramid's levels, each brought to the finest size: (B, channels, h, w)."""
        size = levels[0].shape[-2:]
        total = None
        for x, branch, upsampled in zip(levels, self.branches, self.upsampled, strict=True):
            assert isinstance(branch, nn.Sequential)
            for convolve in branch:
                x = convolve(x)
                if upsampled:
                    x = resize(x, (2 * x.shape[-2], 2 * x.shape[-1]), self.align_corners)
            x = resize(x, size, self.align_corners)
            total = x if total is None else total + x
        assert total is not None
        return total
