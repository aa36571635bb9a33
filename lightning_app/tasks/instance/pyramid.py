"""Feature pyramids: levels of one width, each with the news of the coarser ones."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork
from torchvision.ops.misc import Conv2dNormActivation

from lightning_app.blocks.carafe import CARAFEUpsample
from lightning_app.blocks.nonlocal_net import NonLocalBlock
from lightning_app.kernels.half import evaluated_in_float32
from lightning_app.kernels.layers import fast_layers


class Pyramid(FeaturePyramidNetwork):
    """torchvision's FPN, and one more level from each second pixel of the coarsest.

    m_i = inner_i(c_i) + nearest(m_{i+1}),  p_i = layer_i(m_i).

    Shape: levels (B, in_channels[i], h_i, w_i), finest first -> those and ``extra`` more, (B, channels, ...).

    Args:
        extra: levels beyond the backbone's.

    Paper: https://arxiv.org/abs/1612.03144.
    """

    coarsest = 1  # stride of the coarsest lateral level over that of the backbone's

    def __init__(self, in_channels: Sequence[int], channels: int = 256, *, extra: int = 1) -> None:
        super().__init__(list(in_channels), channels)
        self.channels, self.extra = channels, extra

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        maps = [layer(m) for layer, m in zip(self.layer_blocks, self.merged(levels), strict=True)]
        for _ in range(self.extra):
            maps.append(F.max_pool2d(maps[-1], 1, stride=2))
        return maps

    @evaluated_in_float32
    def merged(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """The levels m_i, each with the news of the coarser ones."""
        with fast_layers(levels[0]):
            maps = [inner(level) for inner, level in zip(self.inner_blocks, levels, strict=True)]
        for fine, coarse in [*pairwise(range(len(maps)))][::-1]:
            maps[fine] = maps[fine] + F.interpolate(maps[coarse], size=maps[fine].shape[-2:], mode="nearest")
        return maps


class CARAFEPyramid(Pyramid):
    """An FPN whose top-down steps are CARAFE's, and whose coarsest level is a convolution of the backbone's last.

    m_i = inner_i(c_i) + carafe(m_{i+1}), cut at the bottom and right where it is larger; the top m is a 3x3
    convolution of stride 2.

    Shape: as ``Pyramid`` with one extra level.

    Args:
        carafe: arguments of ``CARAFEUpsample``.

    Paper: https://arxiv.org/abs/1905.02188. Reference: mmdetection 3.3 FPN_CARAFE.
    """

    coarsest = 2

    def __init__(self, in_channels: Sequence[int], channels: int = 256, **carafe: Any) -> None:
        super().__init__([*in_channels, in_channels[-1]], channels, extra=0)
        top = Conv2dNormActivation(in_channels[-1], channels, 3, stride=2, norm_layer=None, activation_layer=None)
        self.inner_blocks[-1] = top
        self.upsample = nn.ModuleList(CARAFEUpsample(channels, **carafe) for _ in in_channels)
        for layer in (*self.inner_blocks, *self.layer_blocks):
            nn.init.xavier_uniform_(layer[0].weight)

    @evaluated_in_float32
    def merged(self, levels: Sequence[Tensor]) -> list[Tensor]:
        with fast_layers(levels[0]):
            maps = [inner(x) for inner, x in zip(self.inner_blocks, [*levels, levels[-1]], strict=True)]
        for (fine, coarse), upsample in zip([*pairwise(range(len(maps)))][::-1], self.upsample[::-1], strict=True):
            height, width = maps[fine].shape[-2:]
            maps[fine] = maps[fine] + upsample(maps[coarse])[..., :height, :width]
        return maps


class Balance(nn.Module):
    """Libra R-CNN: all levels get what a non-local block makes of their mean.

    q = nonlocal(mean_l resize(p_l)) at the size of level ``middle``,  p_l <- p_l + resize(q): where a map is made
    smaller by its maximum, where larger by the nearest pixel.

    Shape: levels (B, channels, h_i, w_i) -> the same.

    Paper: Pang et al., https://arxiv.org/abs/1904.02701. Reference: mmdetection 3.3 BFP.
    """

    def __init__(self, channels: int, *, middle: int = 2) -> None:
        super().__init__()
        self.middle = middle
        self.refine = NonLocalBlock(channels, reduction=1, use_scale=False, norm=False)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        sizes = [level.shape[-2:] for level in levels]
        finer = [number < self.middle for number in range(len(levels))]
        middle = sizes[self.middle]
        gathered = [_fit(level, middle, smaller=fine) for level, fine in zip(levels, finer, strict=True)]
        common = self.refine(torch.stack(gathered).mean(0))
        each = zip(levels, sizes, finer, strict=True)
        return [level + _fit(common, size, smaller=not fine) for level, size, fine in each]


class BalancedPyramid(Pyramid):
    """An FPN, and Libra R-CNN's balance of its levels.

    Shape: as ``Pyramid``.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256, *, extra: int = 1) -> None:
        super().__init__(in_channels, channels, extra=extra)
        self.balance = Balance(channels)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        balanced: list[Tensor] = self.balance(super().forward(levels))
        return balanced


def _fit(x: Tensor, size: torch.Size, *, smaller: bool) -> Tensor:
    return F.adaptive_max_pool2d(x, list(size)) if smaller else F.interpolate(x, size, mode="nearest")
