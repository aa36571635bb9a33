"""Asymmetric pyramid non-local blocks: every position attends to a pyramid of pooled ones. arXiv:1908.07678."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, cells
from lightning_app.blocks._looks import At, Look, by_parts
from lightning_app.kernels import is_fast
from lightning_app.kernels.products import baddbmm, conv1x1, matmul
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError


class AsymmetricAttention(nn.Module):
    """W y_i, y_i = sum_s softmax_s(d^-1/2 q_i.k_s) v_s, over the S = sum of squared ``scales`` pooled positions s.

    Query and key are CBR1s, the value a 1x1 convolution, pooled after it; W starts at 0. Mean pooling commutes with the
    value's convolution, so it comes first, and W acts on the S values.

    Args:
        shared: the query's layer makes the key.
        bias: of the CBR1s' convolutions.
        pool: "avg" or "max".
    """

    def __init__(
        self,
        low_channels: int,
        high_channels: int,
        key_channels: int,
        value_channels: int,
        out_channels: int,
        *,
        scales: Sequence[int],
        pool: str,
        shared: bool,
        bias: bool,
    ) -> None:
        super().__init__()
        self.scales, self.pool = tuple(scales), pool
        self.query = ConvBNReLU(high_channels, key_channels, bias=bias)
        self.key = None if shared else ConvBNReLU(low_channels, key_channels, bias=bias)
        self.value = Conv1x1(low_channels, value_channels)
        self.out = Conv1x1(value_channels, out_channels)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, S, N) of the positions of ``high`` over pooled ``low``, and values (B, out_channels, S)."""
        query = self.query(high)
        key = pyramid_pool(query if self.key is None else self.key(low), self.scales, self.pool)
        logits = matmul((key * key.shape[1] ** -0.5).mT, query.flatten(2))
        if self.pool == "avg":
            value = self.value(pyramid_pool(low, self.scales).unsqueeze(-1)).squeeze(-1)
        else:
            value = pyramid_pool(self.value(low), self.scales, self.pool)
        return logits.softmax(1).to(query.dtype), self.out(value.unsqueeze(-1)).squeeze(-1)


class AsymmetricNonLocal(nn.Module):
    """What both blocks share: CBR1([sum over stages of asymmetric attention, high]).

    With ``ways`` each scale s has an attention A_s of its own, side by side: CBR1([A_1, A_3, ..., high]), as APCNet has
    a module for each. The part of the fusing convolution that sees the context acts on the pooled values.
    """

    def __init__(
        self,
        low_channels: int,
        high_channels: int,
        key_channels: int,
        value_channels: int,
        out_channels: int,
        *,
        stages: int,
        scales: Sequence[int],
        pool: str,
        shared: bool,
        bias: bool,
        slope: float | None,
        ways: bool,
    ) -> None:
        super().__init__()
        if pool not in ("avg", "max"):
            raise InputError(f'pool={pool!r} is not a way to sample the pyramid: "avg" or "max"')
        pyramids = [[scale] for scale in scales] if ways else [list(scales)]
        self.ways = len(pyramids)
        self.stages = nn.ModuleList(
            AsymmetricAttention(
                low_channels,
                high_channels,
                key_channels,
                value_channels,
                out_channels,
                scales=pyramid,
                pool=pool,
                shared=shared,
                bias=bias,
            )
            for _ in range(stages)
            for pyramid in pyramids
        )
        self.fuse = ConvBNReLU(self.ways * out_channels + high_channels, out_channels, bias=bias, slope=slope)

    def fuse_context(self, low: Tensor, high: Tensor) -> Tensor:
        conv = self.fuse.conv
        *of_context, of_high = torch.split(conv.weight, [conv.out_channels] * self.ways + [high.shape[1]], dim=1)
        y = conv1x1(high, of_high, conv.bias)
        for number, stage in enumerate(self.stages):
            weights, values = stage(low, high)
            y = baddbmm(y.flatten(2), of_context[number % self.ways].flatten(1) @ values, weights).view(y.shape)
        fused: Tensor = self.fuse.finish(y)
        return fused

    def looks(self, at: At, low: Tensor, high: Tensor | None = None) -> list[Look]:
        """The pooled positions that are asked, each spread evenly over the cell that it stands for."""
        high = low if high is None else high
        looks = []
        for stage in self.stages:
            assert isinstance(stage, AsymmetricAttention)
            weights, _ = stage(low, high)
            asked = weights[0, :, at[0] * high.shape[3] + at[1]]
            looks += by_parts("anchor", asked, torch.cat([_spread(low, scale) for scale in stage.scales]))
        return looks


class AFNB(AsymmetricNonLocal):
    """Asymmetric fusion: the positions of a high level ask a pyramid pooled from a low one.

    out = BN(W_f [sum over stages of asymmetric attention, high]). Two maps, so it is in no registry.

    Shape: low (B, low_channels, H', W'), high (B, high_channels, H, W) -> (B, out_channels, H, W).
    Time O(N C (S + C)), S = 110; memory O(N S).

    Args:
        out_channels: width of the result; ``high_channels`` where not given.
        stages: attentions whose results are summed.
        scales: cells per side of the poolings that make the pyramid.
        pool: "avg" or "max".
        bias: give the convolutions in front of a batch norm a bias.
        ways: an attention for each scale, side by side, in place of one over all.

    Raises:
        InputError: unknown ``pool``.

    Paper: Zhu et al., Asymmetric Non-local Neural Networks, ICCV 2019. Consulted: github.com/MendelXu/ANN.
    """

    def __init__(
        self,
        low_channels: int,
        high_channels: int,
        *,
        out_channels: int | None = None,
        key_channels: int = 256,
        value_channels: int = 256,
        stages: int = 1,
        scales: Sequence[int] = (1, 3, 6, 8),
        pool: str = "avg",
        bias: bool = False,
        ways: bool = False,
    ) -> None:
        super().__init__(
            low_channels,
            high_channels,
            key_channels,
            value_channels,
            high_channels if out_channels is None else out_channels,
            stages=stages,
            scales=scales,
            pool=pool,
            shared=False,
            bias=bias,
            slope=None,
            ways=ways,
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return self.fuse_context(low, high)


@BLOCKS.register("ann", paper="arXiv:1908.07678", year=2019)
class APNB(AsymmetricNonLocal):
    """Asymmetric pyramid: the positions of a map ask a pyramid pooled from it.

    out = CBR1([sum over stages of asymmetric attention, x]), query and key made by one layer.

    Shape: (B, C, H, W) -> (B, out_channels, H, W). Time O(N C (S + C)), S = 110; memory O(N S).

    Args:
        out_channels: width of the result; ``channels`` where not given.
        key_channels, value_channels: channels // 2, at least 1, where not given.
        stages, scales, pool, bias, ways: see ``AFNB``.

    Paper: Zhu et al., Asymmetric Non-local Neural Networks, ICCV 2019. Consulted: github.com/MendelXu/ANN.
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        key_channels: int | None = None,
        value_channels: int | None = None,
        stages: int = 1,
        scales: Sequence[int] = (1, 3, 6, 8),
        pool: str = "avg",
        bias: bool = False,
        ways: bool = False,
    ) -> None:
        half = max(channels // 2, 1)
        super().__init__(
            channels,
            channels,
            half if key_channels is None else key_channels,
            half if value_channels is None else value_channels,
            channels if out_channels is None else out_channels,
            stages=stages,
            scales=scales,
            pool=pool,
            shared=True,
            bias=bias,
            slope=0.0,
            ways=ways,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse_context(x, x)


def _spread(x: Tensor, scale: int) -> Tensor:
    """Each of scale x scale cells as shares of its positions: (scale^2, H, W)."""
    rows, columns = (cells(x, side, scale) for side in x.shape[2:])
    inside = torch.einsum("ah,bw->abhw", rows / rows.sum(1, keepdim=True), columns / columns.sum(1, keepdim=True))
    return inside.flatten(0, 1)


def pyramid_pool(x: Tensor, scales: Sequence[int], pool: str = "avg") -> Tensor:
    """Means (or maxima) over s x s cells for each s of ``scales``, side by side: (B, C, H, W) -> (B, C, S)."""
    if pool == "max":
        return torch.cat([F.adaptive_max_pool2d(x, scale).flatten(2) for scale in scales], dim=2)
    if not is_fast():
        return torch.cat([F.adaptive_avg_pool2d(x, scale).flatten(2) for scale in scales], dim=2)
    rows = torch.cat([cells(x, x.shape[2], scale) for scale in scales])
    columns = torch.cat([cells(x, x.shape[3], scale) for scale in scales])
    means = (x @ columns.T) / columns.sum(1)  # every scale's rows with every scale's columns: one pass over x
    means = (rows @ means) / rows.sum(1, keepdim=True)
    starts = [sum(scales[:i]) for i in range(len(scales))]
    spans = [slice(start, start + scale) for start, scale in zip(starts, scales, strict=True)]
    return torch.cat([means[..., span, span].flatten(2) for span in spans], dim=2)
