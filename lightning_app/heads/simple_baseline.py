"""Simple baselines for pose: deconvolutions on the coarsest level. arXiv:1804.06208."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS
from lightning_app.util.errors import InputError

PADDING = {4: (1, 0), 3: (1, 1), 2: (0, 0)}  # of each kernel, and of its output, so that the size doubles


@HEADS.register("simple_baseline", paper="arXiv:1804.06208", year=2018)
class SimpleBaseline(ContextHead):
    """Deconvolutions that each double the resolution, then one convolution.

    y = [ReLU BN deconv]^n(x), n the number of kernels; logits = classify(y). The published heads of pose networks have
    three of kernel 4; those of plain vision transformers two.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, 2^n h, 2^n w) of the level read.

    Args:
        channels: width of every deconvolution.
        kernels: side of each deconvolution: 4, 3 or 2.
        level: index of the backbone level it reads.

    Raises:
        InputError: another kernel, or none.

    Reference: mmpose's HeatmapHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        kernels: Sequence[int] = (4, 4, 4),
        level: int = -1,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, dropout=dropout, **options)
        if not kernels or any(kernel not in PADDING for kernel in kernels):
            raise InputError(f"kernels {list(kernels)}: give at least one, each of side 4, 3 or 2")
        self.level = level
        layers: list[nn.Module] = []
        width = in_channels[level]
        for kernel in kernels:
            inner, outer = PADDING[kernel]
            layers += [
                nn.ConvTranspose2d(width, channels, kernel, 2, inner, outer, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
            width = channels
        self.deconvolutions = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d | nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        y: Tensor = self.deconvolutions(features[self.level])
        return y
