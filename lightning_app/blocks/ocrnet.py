"""Object-contextual representations. arXiv:1909.11065."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, resize
from lightning_app.blocks._looks import At, Look, by_parts, shrunk
from lightning_app.kernels.products import matmul
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError


@BLOCKS.register("ocrnet", paper="arXiv:1909.11065", year=2020)
class ObjectContext(nn.Module):
    """Every position asks a few soft object regions, and is told what they look like.

    r_k = sum_n softmax_N(l_k)_n x_n for region logits l; q = CBR1(CBR1(x)), k = CBR1(CBR1(r)), v = CBR1(r);
    y = CBR1(softmax_K(q k^T / sqrt(O)) v); out = CBR1([y, x]).

    The convolution after the attention acts on the K regions before it.

    Shape: (B, channels, H, W), region logits (B, K, H, W) -> (B, out_channels, H, W).

    Args:
        key_channels: width O of query, key and value, half of ``channels`` where not given.
        out_channels: width of the result, ``channels`` where not given.
        regions: number K of regions that the block finds by a 1x1 convolution of its own; 0 = they are always given.
        bias: give every convolution a bias, as openseg does.
        scale: positions are max-pooled by this factor while they ask.

    Raises:
        InputError: ``regions=0`` and no region logits given.

    Reference: github.com/openseg-group/openseg.pytorch; HRNet-OCR.
    """

    def __init__(
        self,
        channels: int,
        key_channels: int | None = None,
        *,
        out_channels: int | None = None,
        regions: int = 16,
        bias: bool = False,
        scale: int = 1,
    ) -> None:
        super().__init__()
        keys = max(channels // 2, 1) if key_channels is None else key_channels
        self.scale = scale
        self.regions = Conv1x1(channels, regions) if regions else None
        self.query = nn.Sequential(ConvBNReLU(channels, keys, bias=bias), ConvBNReLU(keys, keys, bias=bias))
        self.key = nn.Sequential(ConvBNReLU(channels, keys, bias=bias), ConvBNReLU(keys, keys, bias=bias))
        self.value = ConvBNReLU(channels, keys, bias=bias)
        self.out = ConvBNReLU(keys, channels, bias=bias)
        self.fuse = ConvBNReLU(2 * channels, channels if out_channels is None else out_channels, bias=bias)

    def forward(self, x: Tensor, regions: Tensor | None = None) -> Tensor:
        objects = matmul(x.flatten(2), self._found(x, regions).mT).unsqueeze(-1)
        value = self.out.conv(self.value(objects)).flatten(2)
        attention = self._asked(x, objects)
        y = self.out.finish(matmul(value, attention.flatten(2)).view(*value.shape[:2], *attention.shape[-2:]))
        fused: Tensor = self.fuse(torch.cat([resize(y, x.shape[-2:], align_corners=True), x], dim=1))
        return fused

    def _found(self, x: Tensor, regions: Tensor | None) -> Tensor:
        """Of each region the share of every position, (B, K, H W)."""
        if regions is None:
            if self.regions is None:
                raise InputError("ObjectContext with regions=0 needs the region logits: give them beside the map")
            regions = self.regions(x)
        return regions.flatten(2).softmax(-1)

    def _asked(self, x: Tensor, objects: Tensor) -> Tensor:
        """Of each position that asks the share of every region, (B, K, h, w)."""
        key, query = self.key(objects).flatten(2), self.query(F.max_pool2d(x, self.scale) if self.scale > 1 else x)
        weights = matmul(key.mT * key.shape[1] ** -0.5, query.flatten(2)).softmax(1)
        return weights.view(*weights.shape[:2], *query.shape[-2:])

    def looks(self, at: At, x: Tensor, regions: Tensor | None = None) -> list[Look]:
        """The regions that the position asks, each by the positions that it is gathered from."""
        found = self._found(x, regions)
        asked = self._asked(x, matmul(x.flatten(2), found.mT).unsqueeze(-1))
        row, column = shrunk(at, x.shape[-2:], asked.shape[-2:])
        return by_parts("region", asked[0, :, row, column], found[0].view(-1, *x.shape[-2:]))
