"""Non-local block: every position attends to every other."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._attention import attention, channels_last, to_map, tokens
from lightning_app.blocks._layers import Conv1x1, ConvBNReLU
from lightning_app.blocks._looks import At, Look, dots, softmax_of
from lightning_app.kernels.products import matmul
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError

MODES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation", "mean_shift")


@BLOCKS.register("nonlocal_net", paper="arXiv:1711.07971", year=2018)
class NonLocalBlock(nn.Module):
    """Self-attention over all positions with a residual.

    z = x + BN(W_z y),  y_i = 1/C(x) sum_j f(x_i, x_j) g(x_j), with theta, phi, g 1x1 convolutions and f one of

    - embedded_gaussian: exp(theta_i.phi_j / sqrt(d)), normalised over j;
    - gaussian: exp(x_i.x_j), normalised over j;
    - dot_product: theta_i.phi_j / N, computed as theta_i.(sum_j phi_j g_j) / N;
    - concatenation: relu(w.[theta_i, phi_j]) / N, which is relu(a_i + b_j) / N, by prefix sums over sorted b;
    - mean_shift: no parameters, z_i = the mean of x_j under the kernel exp(-|x_i - x_j|^2 / (2 sqrt(C))).

    Shape: (B, C, H, W) -> (B, C, H, W). Time O(N^2 C), memory O(N C); dot_product O(N C^2), concatenation O(N C).

    Args:
        reduction: inner width is channels // reduction, at least 1.
        use_scale: divide the embedded Gaussian's logits by sqrt(inner width).
        shared: one embedding for query and key (phi = theta).
        norm: a batch norm behind W_z; without one W_z has a bias.

    Raises:
        InputError: unknown mode.

    Paper: Wang et al., Non-local Neural Networks, CVPR 2018. Consulted: mmcv 2.1 NonLocal2d.
    """

    def __init__(
        self,
        channels: int,
        *,
        mode: str = "embedded_gaussian",
        reduction: int = 2,
        use_scale: bool = True,
        shared: bool = False,
        norm: bool = True,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise InputError(f"Unknown non-local mode {mode!r}: one of {', '.join(MODES)}.")
        self.mode = mode
        if mode == "mean_shift":
            return
        inner = max(channels // reduction, 1)
        self.scale = inner**-0.5 if use_scale else 1.0
        self.g = _embedding(channels, inner)
        if mode != "gaussian":
            self.theta = _embedding(channels, inner)
            self.phi = None if shared else _embedding(channels, inner)
        if mode == "concatenation":
            self.concat_project = Conv1x1(2 * inner, 1, bias=False)
        self.conv_out = ConvBNReLU(inner, channels, slope=None) if norm else Conv1x1(inner, channels)
        last = self.conv_out.bn if isinstance(self.conv_out, ConvBNReLU) else self.conv_out
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "mean_shift":
            return _mean_shift(x)
        x = channels_last(x)
        out: Tensor = x + self.conv_out(self.aggregate(x))
        return out

    def aggregate(self, x: Tensor) -> Tensor:
        """y of the equation: (B, C, H, W) -> (B, inner, H, W)."""
        g = self.g(x)
        theta, phi = self.embed(x)
        if self.mode == "gaussian":
            return attention(theta, phi, g, 1.0)
        if self.mode == "embedded_gaussian":
            return attention(theta, phi, g, self.scale)
        if self.mode == "dot_product":
            return linear_attention(theta, phi, g)
        w_theta, w_phi = self.concat_project.weight.chunk(2, dim=1)
        return _relu_attention(torch.conv2d(theta, w_theta), torch.conv2d(phi, w_phi), g)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is compared: query and key maps."""
        if self.mode == "gaussian":
            return x, x
        theta = self.theta(x)
        return theta, theta if self.phi is None else self.phi(x)

    def looks(self, at: At, x: Tensor) -> list[Look]:
        """The weights of the mode: f(x_at, x_j) / C(x)."""
        if self.mode == "mean_shift":
            distance = (x[0] - x[0, :, at[0], at[1], None, None]).square().sum(0)
            return [Look(self.mode, (-distance / (2 * x.shape[1] ** 0.5)).flatten().softmax(0).view_as(distance))]
        theta, phi = self.embed(x)
        if self.mode in ("gaussian", "embedded_gaussian"):
            return [Look(self.mode, softmax_of(theta, phi, 1.0 if self.mode == "gaussian" else self.scale, at))]
        positions = phi.shape[2] * phi.shape[3]
        if self.mode == "dot_product":
            return [Look(self.mode, dots(theta, phi, at) / positions, "signed")]
        of_theta, of_phi = self.concat_project.weight.chunk(2, dim=1)
        a, b = torch.conv2d(theta, of_theta)[0, 0, at[0], at[1]], torch.conv2d(phi, of_phi)[0, 0]
        return [Look(self.mode, (a + b).relu() / positions, "signed")]


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """y_i = q_i.(sum_j k_j v_j) / N over maps: associativity makes it O(N d e)."""
    k = tokens(key)
    context = matmul(value.flatten(2) / k.shape[1], k)
    return matmul(context, query.flatten(2)).reshape(*value.shape[:2], *query.shape[-2:])


def _embedding(channels: int, inner: int) -> nn.Conv2d:
    conv = Conv1x1(channels, inner)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _mean_shift(x: Tensor) -> Tensor:
    """Attention, since -|x_i - x_j|^2 / 2 = x_i.x_j - |x_j|^2 / 2 + a term that the softmax over j ignores.

    The norm rides along as one more channel, and its cancellation against the product needs full precision.
    """
    with torch.autocast(x.device.type, enabled=False):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        half_norm = wide.square().sum(1, keepdim=True) / 2
        query, key = torch.cat([wide, torch.ones_like(half_norm)], 1), torch.cat([wide, -half_norm], 1)
        value = torch.cat([wide, torch.zeros_like(half_norm)], 1)
        return attention(query, key, value, x.shape[1] ** -0.5)[:, :-1].to(x.dtype)


def _relu_attention(a: Tensor, b: Tensor, value: Tensor) -> Tensor:
    """y_i = 1/N sum_j relu(a_i + b_j) v_j over maps, a and b (B, 1, H, W).

    Only the j with b_j > -a_i count. In the order of falling b they are the first k_i, so y_i = (a_i V + U) / N with
    the sums V of v_j and U of b_j v_j over those; both are read off prefix sums.
    """
    wide = torch.promote_types(value.dtype, torch.float32)
    size, a, v = value.shape[-2:], a.flatten(1).to(wide), tokens(value).to(wide)
    fall, order = (-b.flatten(1).to(wide)).sort(dim=1)
    v = v.gather(1, order.unsqueeze(-1).expand_as(v)) / v.shape[1]
    sums = F.pad(torch.cat([v, -fall.unsqueeze(-1) * v], dim=-1).cumsum(1), (0, 0, 1, 0))
    k = torch.searchsorted(fall.detach(), a.detach())
    v_sum, u_sum = sums.gather(1, k.unsqueeze(-1).expand(-1, -1, sums.shape[-1])).chunk(2, dim=-1)
    y = a.unsqueeze(-1) * v_sum + u_sum
    return to_map(y.to(value.dtype), size)
