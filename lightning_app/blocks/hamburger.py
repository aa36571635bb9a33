"""Hamburger: matrix decomposition in place of attention. arXiv:2109.04553."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, unit
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError, check_choice

EPS = 1e-6  # added to every denominator


def nmf(x: Tensor, bases: Tensor, steps: int, *, one_step: bool = True) -> tuple[Tensor, Tensor]:
    """Bases D and coefficients C, none negative, with x ~ D C.

    C starts as softmax_R(D^T x); then ``steps`` times C = C * (D^T x) / (D^T D C) and D = D * (x C^T) / (D C C^T); and
    C once more.

    Shape: x (..., channels, N), bases (..., channels, R) -> (..., channels, R), (..., R, N).

    Args:
        one_step: the gradient runs through the last update alone, as in the paper; else through all of them.
    """
    with torch.set_grad_enabled(torch.is_grad_enabled() and not one_step):
        coefficients = (bases.mT @ x).softmax(-2)
        for _ in range(steps):
            coefficients = _better(coefficients, x, bases)
            numerator = x @ coefficients.mT
            bases = bases * numerator / (bases @ (coefficients @ coefficients.mT) + EPS)
    return bases, _better(coefficients, x, bases)


def _better(coefficients: Tensor, x: Tensor, bases: Tensor) -> Tensor:
    return coefficients * (bases.mT @ x) / (bases.mT @ bases @ coefficients + EPS)


def soft_vq(x: Tensor, bases: Tensor, steps: int, *, temperature: float = 0.1) -> tuple[Tensor, Tensor]:
    """Codes D and shares C of soft vector quantisation: C = softmax_R(cos(D, x) / T), D = x C^T / sum_n C.

    Shape: x (..., channels, N), bases (..., channels, R) -> (..., channels, R), (..., R, N).
    """
    shares = x.new_zeros(())
    for _ in range(steps):
        shares = (unit(bases, -2).mT @ unit(x, -2) / temperature).softmax(-2)
        bases = x @ shares.mT / shares.sum(-1).unsqueeze(-2)
    return bases, shares


@BLOCKS.register("hamburger", paper="arXiv:2109.04553", year=2021)
class Hamburger(nn.Module):
    """The map rebuilt from a few bases that are fitted to it: attention as low-rank reconstruction.

    y = ReLU(x + BN(W' D C)), D C ~ ReLU(W x + b) by ``nmf`` or ``soft_vq`` (of W x + b itself).

    The bases from which the fit starts are drawn once, with the weights, and stay with them: the same map gives the
    same result, where the reference draws anew at every call. In training they are drawn anew where ``redraw`` says so.

    Shape: (B, channels, H, W) -> the same.

    Args:
        bases: number R of bases.
        slices: the channels are cut into so many parts, each with bases of its own.
        steps: updates in training; in evaluation there is one more.
        decomposition: "nmf" or "vq".
        redraw: draw the first bases anew in training, for each image.
        one_step: as in ``nmf``.

    Raises:
        InputError: ``slices`` does not divide ``channels``.

    Reference: the paper's formulas; OpenMMLab's Hamburger.
    """

    start: Tensor

    def __init__(
        self,
        channels: int,
        bases: int = 64,
        *,
        slices: int = 1,
        steps: int = 6,
        decomposition: Literal["nmf", "vq"] = "nmf",
        redraw: bool = True,
        one_step: bool = True,
    ) -> None:
        super().__init__()
        check_choice("decomposition", decomposition, ("nmf", "vq"))
        if channels % slices:
            raise InputError(f"Hamburger cannot cut {channels} channels into {slices} slices")
        self.slices, self.steps, self.decomposition = slices, steps, decomposition
        self.redraw, self.one_step = redraw, one_step
        self.lower = Conv1x1(channels, channels)
        self.upper = ConvBNReLU(channels, channels, slope=None)
        self.register_buffer("start", F.normalize(torch.rand(slices, channels // slices, bases), dim=1))

    def decompose(self, x: Tensor) -> Tensor:
        """The map's reconstruction."""
        flat = x.view(x.shape[0], self.slices, -1, x.shape[-2] * x.shape[-1])
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        with torch.autocast(x.device.type, enabled=False):
            start = self.start.to(flat.dtype)
            if self.training and self.redraw:
                start = F.normalize(torch.rand_like(start.expand(x.shape[0], -1, -1, -1)), dim=2)
            steps = self.steps + (not self.training)
            if self.decomposition == "vq":
                bases, coefficients = soft_vq(flat, start, steps)
            else:
                bases, coefficients = nmf(flat, start, steps, one_step=self.one_step)
            return (bases @ coefficients).view_as(x).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lower(x)
        y = self.decompose(y if self.decomposition == "vq" else F.relu(y))
        return F.relu(x + self.upper(y))
