"""Polarized self-attention: a channel gate and a spatial gate that keep full resolution along their own axis."""

from typing import Literal

from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1
from lightning_app.blocks._looks import At, Look
from lightning_app.kernels import is_fast
from lightning_app.kernels.products import matmul
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import check_choice


@BLOCKS.register("polarized", paper="arXiv:2107.00782", year=2022)
class PolarizedSelfAttention(nn.Module):
    """Polarized self-attention, side by side or one after the other.

    channel gate  c(x) = sigmoid(up(sum_n W_v x_n softmax_N(W_q x)_n)), one number per channel;
    spatial gate  s(x) = sigmoid(q . W_v' x_n) with q = W_q' mean_n(x_n), one number per position;
    parallel      out = x c(x) + x s(x);   sequential   z = x c(x), out = z s(z).

    The released code and the paper's text differ, and in the released code so do the two modes:

    ================== ============================== =============================== ==================
    form, mode         up                             spatial gate                    convolution biases
    ================== ============================== =============================== ==================
    official parallel  conv                           sigmoid(softmax_N(q . W_v' x))  no
    official sequential conv, layer norm, ReLU, conv  sigmoid(q . softmax_N(W_v' x))  only in ``up``
    paper              conv, layer norm               sigmoid(softmax_C(q) . W_v' x)  yes
    ================== ============================== =============================== ==================

    A weighted sum over positions commutes with a 1x1 convolution, so in ``fast`` the sum (or the product with q)
    comes first and the convolution acts on one vector: only the official sequential form, whose softmax stands in
    between, keeps a full convolution. The official code's queries and values start Kaiming normal (fan in), the rest as
    PyTorch's.

    Shape: (B, channels, H, W) -> the same.

    Paper: https://arxiv.org/abs/2107.00782. Consulted: github.com/DeLightCMU/PSA (official),
    github.com/xmu-xiaoma666/External-Attention-pytorch (the paper's form).
    """

    def __init__(
        self,
        channels: int,
        *,
        mode: Literal["parallel", "sequential"] = "parallel",
        form: Literal["official", "paper"] = "official",
    ) -> None:
        super().__init__()
        check_choice("mode", mode, ("parallel", "sequential"))
        check_choice("form", form, ("official", "paper"))
        self.mode, self.form = mode, form
        half = channels // 2
        bias = form == "paper"
        self.channel_query = Conv1x1(channels, 1, bias=bias)
        self.channel_value = Conv1x1(channels, half, bias=bias)
        self.spatial_query = Conv1x1(channels, half, bias=bias)
        self.spatial_value = Conv1x1(channels, half, bias=bias)
        if form == "paper":  # one group over a 1x1 map is a layer norm over channels
            self.channel_up = nn.Sequential(Conv1x1(half, channels), nn.GroupNorm(1, channels))
        elif mode == "sequential":
            self.channel_up = nn.Sequential(
                Conv1x1(half, half // 4),
                nn.LayerNorm([half // 4, 1, 1]),
                nn.ReLU(inplace=True),
                Conv1x1(half // 4, channels),
            )
        else:
            self.channel_up = nn.Sequential(Conv1x1(half, channels, bias=False))
        if form == "official":
            for conv in (self.channel_query, self.channel_value, self.spatial_query, self.spatial_value):
                nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        if is_fast():
            return self.fast(x)
        if self.mode == "parallel":
            return x * self.channel_gate(x) + x * self.spatial_gate(x)
        z = x * self.channel_gate(x)
        return z * self.spatial_gate(z)

    def looks(self, at: At, x: Tensor) -> list[Look]:
        """Both gates, the same for all positions: what that of the channels is gathered from, and the other itself."""
        gathered = self.channel_query(x).flatten().softmax(0).view(x.shape[-2:])
        gated = x if self.mode == "parallel" else x * self.channel_gate(x)
        return [
            Look("channel gate, gathered from", gathered),
            Look("spatial gate", self.spatial_gate(gated)[0, 0], "gate"),
        ]

    def channel_gate(self, x: Tensor) -> Tensor:
        """(B, channels, 1, 1) in (0, 1)."""
        attention = self.channel_query(x).flatten(2).softmax(-1)  # (B, 1, N)
        context = self.channel_value(x).flatten(2) @ attention.mT  # (B, C / 2, 1)
        gate: Tensor = self.channel_up(context.unsqueeze(-1)).sigmoid()
        return gate

    def spatial_gate(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) in (0, 1)."""
        query = self.spatial_query(x).mean((2, 3)).unsqueeze(1)  # (B, 1, C / 2)
        value = self.spatial_value(x).flatten(2)  # (B, C / 2, N)
        if self.form == "paper":
            scores = query.softmax(-1) @ value  # (B, 1, N)
        elif self.mode == "sequential":
            scores = query @ value.softmax(-1)
        else:
            scores = (query @ value).softmax(-1)
        gate: Tensor = scores.sigmoid().view(x.shape[0], 1, *x.shape[2:])
        return gate

    def fast(self, x: Tensor) -> Tensor:
        """The same, with the sums before the convolutions and one product with the map at the end."""
        attention = self.channel_query(x).flatten(2).softmax(-1)
        context = (x.flatten(2) @ attention.mT).unsqueeze(-1)
        channel: Tensor = self.channel_up(self.channel_value(context)).sigmoid()
        if self.mode == "parallel":
            return x * (channel + self._fast_spatial_gate(x))
        return x * (channel * self._fast_spatial_gate(x, channel))

    def _fast_spatial_gate(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Of ``x * gate``: one factor per channel goes into the weights instead of the map."""
        mean = x.mean((2, 3), keepdim=True)
        weight = self.spatial_value.weight.flatten(1)
        if gate is not None:
            mean, weight = mean * gate, weight * gate.flatten(1).unsqueeze(1)
        query = self.spatial_query(mean).flatten(1)
        if self.form == "paper":
            query = query.softmax(1)
        query = query.unsqueeze(1)
        if self.form == "official" and self.mode == "sequential":
            scores = query @ matmul(weight, x.flatten(2)).softmax(-1)
        else:
            scores = query @ weight @ x.flatten(2)
            if self.spatial_value.bias is not None:
                scores = scores + query @ self.spatial_value.bias.unsqueeze(-1)
            if self.form == "official":
                scores = scores.softmax(-1)
        result: Tensor = scores.sigmoid().view(x.shape[0], 1, *x.shape[2:])
        return result
