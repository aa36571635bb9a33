"""Double attention: gather a few global descriptors, give every position the ones it asks for."""

from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1
from lightning_app.blocks._looks import At, Look, by_parts
from lightning_app.kernels import is_fast
from lightning_app.kernels.products import baddbmm, matmul
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError


@BLOCKS.register("a2net", paper="arXiv:1810.11579", year=2018)
class DoubleAttention(nn.Module):
    """A2-Net's double attention block.

    gather      G = A softmax_N(B)^T, each of the d attention maps sums to one over the positions;
    distribute  Z = G softmax_d(V), each position's weights sum to one over the d descriptors;
    out = x + W Z + b, with A, B, V 1x1 convolutions of x.

    In ``fast`` the convolutions of A and W act on the d descriptors instead of the N positions: both commute with the
    sums. Weights keep PyTorch's own initialisation.

    Shape: (B, channels, H, W) -> the same, or (B, width, H, W) without ``expand``.

    Args:
        width: channels of a descriptor; channels // 4 if not given.
        descriptors: how many are gathered; ``width`` if not given.
        expand: bring the result back to ``channels``.
        residual: add the input (the paper does; its third-party codes leave it to the network).

    Raises:
        InputError: if a residual is asked for without ``expand``.

    Paper: https://arxiv.org/abs/1810.11579. No official code; checked against the numbers of
    github.com/nguyenvo09/Double-Attention-Network.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int | None = None,
        descriptors: int | None = None,
        expand: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__()
        if residual and not expand:
            raise InputError("residual=True needs expand=True: input and output differ in channels.")
        width = width or channels // 4
        descriptors = descriptors or width
        self.residual = residual
        self.feature = Conv1x1(channels, width)
        self.gather = Conv1x1(channels, descriptors)
        self.distribute = Conv1x1(channels, descriptors)
        self.expand = Conv1x1(width, channels) if expand else None

    def forward(self, x: Tensor) -> Tensor:
        if is_fast():
            return self.fast(x)
        gathered = self.feature(x).flatten(2) @ self.gather(x).flatten(2).softmax(-1).mT  # (B, width, d)
        z = gathered @ self.distribute(x).flatten(2).softmax(1)  # (B, width, N)
        z = z.unflatten(2, x.shape[2:])
        if self.expand is not None:
            z = self.expand(z)
        out: Tensor = x + z if self.residual else z
        return out

    def fast(self, x: Tensor) -> Tensor:
        """The same, with the outer convolutions on the descriptors."""
        flat = x.flatten(2)
        attention = self.gather(x).flatten(2).softmax(-1)
        # Attention sums to one over positions, distribution over descriptors: the biases of A and W pass through both.
        descriptors = self.feature(matmul(flat, attention.mT).unsqueeze(-1))
        if self.expand is not None:
            descriptors = self.expand(descriptors)
        descriptors, distribution = descriptors.squeeze(-1), self.distribute(x).flatten(2).softmax(1)
        out: Tensor = baddbmm(flat, descriptors, distribution) if self.residual else matmul(descriptors, distribution)
        return out.view(*out.shape[:2], *x.shape[2:])

    def looks(self, at: At, x: Tensor) -> list[Look]:
        """The descriptors that the position asks for, each by the positions that it is gathered from."""
        gathered = self.gather(x)[0].flatten(1).softmax(1).view(-1, *x.shape[2:])
        return by_parts("descriptor", self.distribute(x)[0, :, at[0], at[1]].softmax(0), gathered)
