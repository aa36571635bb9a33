"""Losses of keypoint maps. Reference: mmpose (heatmap_loss.py)."""

import torch
from torch import Tensor


def heatmap_loss(output: Tensor, target: Tensor, weights: Tensor, *, skip_empty: bool = False) -> Tensor:
    """Mean over B, K, h, w of weight (output - target)^2; a point of weight 0 stays in the denominator.

    HRNet's own code (JointsMSELoss) takes half of it, with the weights squared.

    Shape: output and target (B, K, h, w), weights (B, K) -> a number.

    Args:
        skip_empty: weigh maps without a target by 0.
    """
    shares = weights * (target != 0).flatten(2).any(2) if skip_empty else weights
    return (shares[..., None, None] * (output - target).square()).mean()


def combined_loss(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Loss of discs and offsets: sum over points of 0.5 (mse(w p, w t) + mse(w t x, w t x') + mse(w t y, w t y')) / K.

    p and t are disc and target disc, x and x', y and y' the offsets; w the weight of the point. Offsets count inside
    the target's disc alone.

    Shape: output and target (B, 3 K, h, w), weights (B, K) -> a number. Reference: arXiv:1911.07524.
    """
    given, wanted = (torch.unflatten(maps, 1, (-1, 3)) for maps in (output, target))  # (B, K, 3, h, w)
    w = weights[..., None, None, None]
    inside = w * wanted[:, :, :1]
    disc = (w * (given[:, :, :1] - wanted[:, :, :1])).square().mean()
    offsets = (inside * (given[:, :, 1:] - wanted[:, :, 1:])).square().sum(2).mean()
    return 0.5 * (disc + offsets)
