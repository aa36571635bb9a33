"""Disentangled non-local block. arXiv:2006.06668."""

from typing import Any

from torch import Tensor

from lightning_app.blocks._layers import Conv1x1
from lightning_app.blocks._looks import At, Look
from lightning_app.blocks.nonlocal_net import NonLocalBlock
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError


@BLOCKS.register("dnlnet", paper="arXiv:2006.06668", year=2020)
class DisentangledNonLocalBlock(NonLocalBlock):
    """Non-local attention split into what two positions share and what one position stands out by.

    z = x + BN(W_z (y_i + u)), with y_i the non-local sum of ``NonLocalBlock`` over whitened embeddings,
    f = exp((theta_i - mean theta).(phi_j - mean phi) / (sqrt(d) temperature)), and
    u = sum_j softmax_j(m.x_j) g_j, one vector for all positions.

    Shape: (B, C, H, W) -> (B, C, H, W).

    Args:
        temperature: of the embedded Gaussian; the other modes have none.
        options: of ``NonLocalBlock``; every mode that has an embedding to whiten.

    Paper: Yin et al., Disentangled Non-Local Neural Networks, ECCV 2020. Consulted: mmsegmentation 1.2 DNLHead.
    """

    def __init__(self, channels: int, *, temperature: float = 0.05, **options: Any) -> None:
        super().__init__(channels, **options)
        if self.mode == "mean_shift":
            raise InputError("The disentangled non-local block has no mean_shift mode.")
        self.scale /= temperature
        self.conv_mask = Conv1x1(channels, 1)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        theta, phi = super().embed(x)
        whitened = theta - theta.mean((2, 3), keepdim=True)
        return whitened, whitened if phi is theta else phi - phi.mean((2, 3), keepdim=True)

    def looks(self, at: At, x: Tensor) -> list[Look]:
        """What two positions share, and what one stands out by, which is the same for all."""
        pairwise = [look._replace(name=f"pairwise, {look.name}") for look in super().looks(at, x)]
        mask = self.conv_mask(x)
        return [*pairwise, Look("unary", mask.flatten().softmax(0).view(mask.shape[-2:]))]

    def aggregate(self, x: Tensor) -> Tensor:
        """The weights of the unary sum add up to one, so g is applied to the sum and not to every position."""
        mask = self.conv_mask(x).flatten(2).softmax(-1).to(x.dtype)
        unary: Tensor = self.g((x.flatten(2) @ mask.transpose(1, 2)).unsqueeze(-1))
        return super().aggregate(x) + unary
