"""Expectation-maximisation attention. arXiv:1907.13426."""

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU
from lightning_app.blocks._looks import At, Look, by_parts
from lightning_app.kernels import is_fast
from lightning_app.kernels.products import matmul
from lightning_app.registry import BLOCKS


@BLOCKS.register("emanet", paper="arXiv:1907.13426", year=2019)
class EMAU(nn.Module):
    """Expectation-maximisation attention unit: the map rebuilt from a few bases fitted to it.

    v = W x + b; then ``stages`` times Z = softmax_K(mu^T v), each row of Z divided by its sum over the positions, and
    mu = v Z^T normalised to unit columns; out = ReLU(x + BN(W' ReLU(mu Z))).

    The fit is outside the graph, as in the reference: the gradient reaches x through the identity only, and W, b never
    learn, so they are frozen here, unless the bases are ``learned``. In ``fast`` W is folded into the bases (mu^T W x)
    and the L1 normalisation over positions into the L2 one over channels: v itself, N x C numbers, is never made.

    In training the bases follow those of each batch (mean over images and ranks) as a moving average. Bases that are
    ``learned`` start alike and take the loss's gradient, and so do x, W and b, through every step.

    Shape: (B, channels, H, W) -> the same; bases (1, channels, bases).

    Args:
        bases: number of bases K.
        stages: expectation-maximisation steps.
        momentum: share of a batch's bases in the moving average.
        unit_update: scale the batch's mean bases to unit length before they are averaged in, as OpenMMLab does.
        eps: guard of both normalisations.
        learned: the bases are a parameter, no moving average.

    Reference: github.com/XiaLiPKU/EMANet (the behaviour, not the code).
    """

    bases: Tensor

    def __init__(
        self,
        channels: int,
        bases: int = 64,
        stages: int = 3,
        *,
        momentum: float = 0.1,
        unit_update: bool = False,
        eps: float = 1e-6,
        learned: bool = False,
    ) -> None:
        super().__init__()
        self.learned = learned
        self.stages, self.momentum, self.unit_update, self.eps = stages, momentum, unit_update, eps
        start = F.normalize(torch.randn(1, channels, bases) * (2 / bases) ** 0.5, dim=1)
        if learned:
            self.bases = nn.Parameter(start)
        else:
            self.register_buffer("bases", start)
        self.mid = Conv1x1(channels, channels).requires_grad_(learned)
        self.out = ConvBNReLU(channels, channels, slope=None)

    def fit(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Assignments (B, K, H*W) of the positions, and the bases (B, channels, K) fitted to them."""
        if is_fast():
            return self.fast(x)
        v = self.mid(x).flatten(2)  # (B, C, N)
        bases = self.bases.expand(x.shape[0], -1, -1)  # (B, C, K)
        for _ in range(self.stages):
            assignments = (bases.mT @ v).softmax(1)  # (B, K, N)
            bases = v @ (assignments / (self.eps + assignments.sum(-1, keepdim=True))).mT
            bases = bases / (self.eps + bases.norm(dim=1, keepdim=True))
        return assignments, bases

    def fast(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What ``fit`` gives, without v."""
        x = x.flatten(2)
        weight, bias = self.mid.weight.flatten(1), self.mid.bias
        assert bias is not None
        scale = x.shape[-1] ** -0.5  # keeps the sums over positions inside fp16's range
        bases = self.bases.expand(x.shape[0], -1, -1)
        for _ in range(self.stages):
            assignments = (matmul(bases.mT @ weight, x) + (bias @ bases).unsqueeze(-1)).softmax(1)
            scaled = assignments * scale
            mass = scaled.sum(-1).unsqueeze(1)
            total = weight @ matmul(x, scaled.mT) + bias[:, None] * mass
            bases = total / (total.norm(dim=1, keepdim=True) + self.eps * (mass + self.eps * scale))
        return assignments, bases

    @torch.no_grad()
    def follow(self, fitted: Tensor) -> None:
        """Move the bases towards those fitted to a batch, averaged over its images and over all ranks."""
        mean = fitted.mean(0, keepdim=True)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(mean)
            mean /= distributed.get_world_size()
        if self.unit_update:
            mean = F.normalize(mean, dim=1)
        self.bases.lerp_(mean.to(self.bases.dtype), self.momentum)

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.learned and torch.is_grad_enabled()):
            assignments, bases = self.fit(x)
        if self.training and not self.learned:
            self.follow(bases)
        rebuilt = matmul(bases, assignments).view_as(x)
        y: Tensor = self.out(rebuilt.relu_())
        return y.add_(x).relu_()

    def looks(self, at: At, x: Tensor) -> list[Look]:
        """The bases that the position is rebuilt from, each by the positions that it is fitted to.

        A base's length, to which it is normalised, is left out.
        """
        assignments, _ = self.fit(x)
        gathered = assignments[0] / assignments[0].sum(1, keepdim=True)
        asked = assignments[0, :, at[0] * x.shape[3] + at[1]]
        return by_parts("base", asked, gathered.view(-1, *x.shape[2:]))
