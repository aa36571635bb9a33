"""Efficient attention: a fixed number of global maps instead of all pairs of positions."""

from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1
from lightning_app.blocks._looks import At, Look, by_parts
from lightning_app.kernels.products import baddbmm, matmul
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError


@BLOCKS.register("efficient_attention", paper="arXiv:1812.01243", year=2021)
class EfficientSelfAttention(nn.Module):
    """Attention with linear cost: softmax(Q) (softmax(K)^T V) in place of softmax(Q K^T) V.

    Per head: k = softmax over N of W_k x, q = softmax over the head's key channels of W_q x, G = k v^T,
    out = x + W_r G^T q + b_r.

    G^T q followed by W_r is (W_r G^T) q, and k (W_v x)^T is (k x^T) W_v^T: both small matrices are multiplied into G,
    and neither the values nor the heads' outputs are ever built for N positions. Weights keep PyTorch's own
    initialisation.

    Shape: (B, channels, H, W) -> the same. Time O(N d_k C), memory O(N d_k).

    Args:
        key_channels: width of queries and keys over all heads; channels // 4 if not given.
        value_channels: width of values over all heads; channels // 2 if not given.
        heads: number of heads (one in the paper).

    Raises:
        InputError: if the heads do not divide both widths.

    Paper: https://arxiv.org/abs/1812.01243. Consulted: github.com/cmsflash/efficient-attention.
    """

    def __init__(
        self,
        channels: int,
        *,
        key_channels: int | None = None,
        value_channels: int | None = None,
        heads: int = 1,
    ) -> None:
        super().__init__()
        key_channels = key_channels or channels // 4
        value_channels = value_channels or channels // 2
        if key_channels % heads or value_channels % heads:
            raise InputError(f"heads={heads} must divide key_channels={key_channels}, value_channels={value_channels}.")
        self.heads = heads
        self.key = Conv1x1(channels, key_channels)
        self.query = Conv1x1(channels, key_channels)
        self.value = Conv1x1(channels, value_channels)
        self.reproject = Conv1x1(value_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, heads = x.shape[0], self.heads
        query = self.query(x).reshape(batch, heads, -1, x.shape[2] * x.shape[3]).softmax(2).flatten(1, 2)
        key = self.key(x).flatten(2).softmax(-1)

        # Keys sum to one over positions, queries over a head's keys: both biases pass through these sums unchanged.
        gathered = matmul(key, x.flatten(2).mT).view(batch, heads, -1, x.shape[1])
        context = gathered @ self.value.weight.view(heads, -1, x.shape[1]).transpose(1, 2)
        if self.value.bias is not None:
            context = context + self.value.bias.view(heads, 1, -1)
        reproject = self.reproject.weight.view(x.shape[1], heads, -1).transpose(0, 1)
        mix = (reproject @ context.transpose(2, 3)).transpose(1, 2).flatten(2)
        if self.reproject.bias is not None:
            mix = mix + self.reproject.bias.view(-1, 1) / heads
        return baddbmm(x.flatten(2), mix, query).view_as(x)

    def looks(self, at: At, x: Tensor) -> list[Look]:
        """The key channels that the position asks, each by the positions that it is gathered from; of several heads
        their mean."""
        asked = self.query(x)[0, :, at[0], at[1]].view(self.heads, -1).softmax(1).flatten() / self.heads
        gathered = self.key(x)[0].flatten(1).softmax(1).view(-1, *x.shape[2:])
        return by_parts("key channel", asked, gathered)
