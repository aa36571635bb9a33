"""Weights of classes by how many pixels each has."""

from collections.abc import Callable

from torch import Tensor

from lightning_app.util.errors import InputError


def balanced_weights(counts: Tensor) -> Tensor:
    """Median-frequency weights w_c = median(n) / n_c over the classes present.

    An absent class gets the largest weight of the others: it may be absent only from the part that was counted.

    Shape: counts (K,) pixels per class -> (K,) float32.

    Paper: arXiv:1411.4734.
    """
    return _weigh(counts, lambda share: share.quantile(0.5) / share)


def log_frequency_weights(counts: Tensor) -> Tensor:
    """ENet's weights w_c = 1 / ln(1.02 + p_c), p_c the class's share of the pixels: 1.4 to 50.5, gentler than balanced.

    An absent class gets the largest weight of the others.

    Shape: counts (K,) pixels per class -> (K,) float32.

    Paper: arXiv:1606.02147.
    """
    return _weigh(counts, lambda share: 1 / (1.02 + share).log())


def _weigh(counts: Tensor, rule: Callable[[Tensor], Tensor]) -> Tensor:
    """Weights by ``rule`` of the shares of the classes present, the largest of them for the rest."""
    present = counts > 0
    if not present.any():
        raise InputError("No pixel has a label, so there are no class weights: check the masks (contextzoo data check)")
    weights = rule(counts[present].double() / counts.sum())
    return weights.max().repeat(len(counts)).masked_scatter(present, weights).float()
