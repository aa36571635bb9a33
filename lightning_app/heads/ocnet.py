"""Object context network. arXiv:1809.00916."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.blocks.ocnet import ASPOC, LEAKY, BaseOC, PyramidOC
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS
from lightning_app.util.errors import InputError


@HEADS.register("ocnet", paper="arXiv:1809.00916", year=2018)
class OCNet(ContextHead):
    """reduce -> object context, fused with its input -> classify.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        variant: "base", "pyramid" or "asp", see ``BaseOC``, ``PyramidOC`` and ``ASPOC``.
        openseg: the authors' later code, see ``BaseOC``; it has no pyramid.
        level: index of the backbone level it reads.

    Raises:
        InputError: unknown variant, or a pyramid with ``openseg``.

    Reference: github.com/openseg-group/OCNet.pytorch and openseg.pytorch.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        variant: str = "base",
        openseg: bool = False,
        level: int = -1,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        self.level = level
        self.reduce = ConvBNReLU(in_channels[level], channels, 3, bias=True, slope=0.0 if openseg else LEAKY)
        self.block = _block(variant, channels, openseg)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x: Tensor = self.block(self.reduce(features[self.level]))
        return x


def _block(variant: str, channels: int, openseg: bool) -> nn.Module:
    if variant == "base":
        return BaseOC(channels, openseg=openseg)
    if variant == "asp":
        return ASPOC(channels, openseg=openseg)
    if variant == "pyramid" and not openseg:
        return PyramidOC(channels)
    raise InputError(
        f'OCNet has no variant {variant!r} with openseg={openseg}: "base", "asp", or "pyramid" without openseg'
    )
