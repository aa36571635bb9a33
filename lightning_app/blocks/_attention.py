"""Attention over the positions of maps, and their layouts."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU
from lightning_app.blocks._looks import At, softmax_of
from lightning_app.kernels.attention import attend


class SelfAttention(nn.Module):
    """Query, key and value of the same map: y_i = sum_j softmax_j(d^-1/2 q_i.k_j) v_j.

    Args:
        depth: convolutions, each with BN and activation, that make the query and the key.
        shared: the query is the key.
        bias, slope: of those convolutions, see ``ConvBNReLU``.
        value_bias: of the value's one convolution, which has neither BN nor activation.

    Shape: (B, channels, H, W) -> (B, value_channels, H, W).
    """

    def __init__(
        self,
        channels: int,
        key_channels: int,
        value_channels: int,
        *,
        depth: int = 1,
        shared: bool = False,
        bias: bool = False,
        slope: float = 0.0,
        value_bias: bool = True,
    ) -> None:
        super().__init__()

        def projection() -> nn.Sequential:
            widths = [channels] + [key_channels] * depth
            return nn.Sequential(*(ConvBNReLU(i, o, bias=bias, slope=slope) for i, o in pairwise(widths)))

        self.scale = key_channels**-0.5
        self.query = projection()
        self.key = None if shared else projection()
        self.value = Conv1x1(channels, value_channels, bias=value_bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value maps."""
        query = self.query(x)
        return query, query if self.key is None else self.key(x), self.value(x)

    def forward(self, x: Tensor) -> Tensor:
        return attention(*self.project(channels_last(x)), self.scale)

    def weights(self, at: At, x: Tensor) -> Tensor:
        """Those of one position of one image: (1, channels, H, W) -> (H, W)."""
        query, key, _ = self.project(x)
        return softmax_of(query, key, self.scale, at)


def channels_last(x: Tensor) -> Tensor:
    """The same map laid out so that ``tokens`` of it, and of its 1x1 convolutions, is a view."""
    return x.contiguous(memory_format=torch.channels_last)


def tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C), contiguous: what every fused kernel asks for; free where ``x`` is channels_last."""
    return x.flatten(2).transpose(1, 2).contiguous()


def to_map(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, H*W, C) -> (B, C, H, W), a view."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *size)


def attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """``attend`` over the positions of maps: (B, d, H, W), (B, d, M...), (B, e, M...) -> (B, e, H, W)."""
    return to_map(attend(tokens(query), tokens(key), tokens(value), scale), query.shape[-2:])
