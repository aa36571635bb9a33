"""Dual attention: over positions and over channels. arXiv:1809.02983."""

import torch
from torch import Tensor, nn

from lightning_app.blocks._attention import attention, channels_last
from lightning_app.blocks._layers import Conv1x1
from lightning_app.blocks._looks import At, Look, softmax_of
from lightning_app.kernels.products import baddbmm, matmul
from lightning_app.registry import BLOCKS


@BLOCKS.register("pam", paper="arXiv:1809.02983", year=2019)
class PositionAttention(nn.Module):
    """x_i + gamma sum_j softmax_j(q_i.k_j) v_j over positions; gamma starts at 0.

    Shape: (B, C, H, W) -> (B, C, H, W). Time O(N^2 C), memory O(N C).

    Args:
        key_channels: width of query and key; channels // 8, at least 1, where not given.

    Paper: Fu et al., DANet, CVPR 2019. Consulted: github.com/junfu1115/DANet.
    """

    def __init__(self, channels: int, *, key_channels: int | None = None) -> None:
        super().__init__()
        inner = max(channels // 8, 1) if key_channels is None else key_channels
        self.query = Conv1x1(channels, inner)
        self.key = Conv1x1(channels, inner)
        self.value = Conv1x1(channels, channels)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        x = channels_last(x)
        return torch.addcmul(x, attention(self.query(x), self.key(x), self.value(x), 1.0), self.gamma)

    def looks(self, at: At, x: Tensor) -> list[Look]:
        """softmax_j(q_at.k_j)."""
        return [Look("position attention", softmax_of(self.query(x), self.key(x), 1.0, at))]


@BLOCKS.register("cam", paper="arXiv:1809.02983", year=2019)
class ChannelAttention(nn.Module):
    """x_c + gamma sum_d softmax_d(-x_c.x_d) x_d over channels, the products over positions; gamma starts at 0.

    The minus is the reference's: channels that are least alike weigh most. (It writes the largest x_c.x_d in front,
    which the softmax over d ignores.)

    Shape: (B, C, H, W) -> (B, C, H, W). Time O(N C^2), memory O(C^2).

    Paper: Fu et al., DANet, CVPR 2019. Consulted: github.com/junfu1115/DANet.
    """

    def __init__(self, channels: int) -> None:
        del channels  # the block has no weights; every block takes its width
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        with torch.autocast(
            x.device.type, enabled=False
        ):  # sums over all positions, raw in a softmax: half is too coarse
            wide = flat.to(torch.promote_types(x.dtype, torch.float32))
            weights = matmul(wide, wide.mT).neg().softmax(-1).to(x.dtype)
        return baddbmm(flat, self.gamma * weights, flat).view_as(x)
