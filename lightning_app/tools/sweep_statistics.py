"""Which differences hold: over images, over seeds, and over the number of pairs that are looked at."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
ALPHA = 0.05
POWER = 0.8
LEAST_FREEDOM = 10  # of the deviation over seeds; with fewer the normal distribution would promise too much
NORMAL = NormalDist()

Values = NDArray[np.float64]
Counts = NDArray[np.int64]


def miou(weights: Values, truth: Counts, predicted: Counts, hits: Counts) -> Values:
    """Mean IoU of sets of images, each image as often as its weight says.

    IoU_k = sum_n w_n hits_nk / sum_n w_n (truth_nk + predicted_nk - hits_nk); the mean is over the classes that are in
    truth or prediction.

    Shape: weights (S, N), the others (N, K) -> (S,).
    """
    union = weights @ (truth + predicted - hits)
    with np.errstate(invalid="ignore"):
        result: Values = np.nanmean(np.where(union > 0, weights @ hits / union, np.nan), 1)
    return result


def resamples(images: int, count: int = RESAMPLES, seed: int = 0) -> Values:
    """How often each image is drawn, in bootstrap samples of all: one set for every head, so that they are paired.

    Shape: (count, images).
    """
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=count)
    return drawn.astype(np.float64)


class Difference(NamedTuple):
    """A head's mean mIoU less another's, in shares of one.

    Args:
        error: standard error, over images and seeds.
        p: two-sided, of no difference, by the normal distribution and Holm's correction for all pairs.
    """

    head: str
    other: str
    mean: float
    error: float
    p: float


def differences(
    scores: Mapping[str, Sequence[float]],
    resampled: Mapping[str, Sequence[Values]],
    pairs: Iterable[tuple[str, str]],
) -> list[Difference]:
    """Of the first to the second of each pair, the largest first; none where too few seeds tell how far these scatter.

    var = var_images + s_first^2 / n_first + s_second^2 / n_second: the first by the bootstrap, paired by image; s the
    deviation over seeds, pooled over all heads, since two or three seeds of one tell little, or a head's own where that
    is larger: a head that some seeds fail to train is not told apart by how well others repeat.

    Args:
        scores: mIoU of each head's trainings, one of each seed.
        resampled: the same trainings' mIoU in each bootstrap sample.
        pairs: heads; a pair of which one is not there is left out.
    """
    deviation, freedom = pooled_deviation(scores)
    if freedom < LEAST_FREEDOM:
        return []
    clouds = {head: np.mean(values, axis=0) for head, values in resampled.items()}
    found = []
    for head, other in pairs:
        if not {head, other} <= scores.keys():
            continue
        over_images = float(np.std(clouds[head] - clouds[other], ddof=1))
        over_seeds = (
            max(deviation, deviation_of(scores[name])) / math.sqrt(len(scores[name])) for name in (head, other)
        )
        difference = float(np.mean(scores[head]) - np.mean(scores[other]))
        found.append((head, other, difference, math.hypot(over_images, *over_seeds)))
    corrected = holm([_p(difference, error) for *_, difference, error in found])
    return sorted((Difference(*each, p) for each, p in zip(found, corrected, strict=True)), key=lambda each: -each.mean)


def pooled_deviation(scores: Mapping[str, Sequence[float]]) -> tuple[float, int]:
    """Sample deviation over seeds, pooled over heads, and its degrees of freedom; (0, 0) where each has one seed."""
    freedom = sum(len(values) - 1 for values in scores.values())
    squares = sum(float(np.sum((np.array(values) - np.mean(values)) ** 2)) for values in scores.values())
    return math.sqrt(squares / freedom) if freedom else 0.0, freedom


def deviation_of(values: Sequence[float]) -> float:
    """Sample deviation; 0 of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the i-th smallest of m times m - i, never less than the one before, at most 1.

    Scand. J. Statist. 6 (1979) 65-70.
    """
    corrected, floor = [0.0] * len(p), 0.0
    for step, place in enumerate(np.argsort(p)):
        floor = max(floor, min(1.0, (len(p) - step) * p[place]))
        corrected[place] = floor
    return corrected


def smallest(errors: Sequence[float]) -> float:
    """The smallest true difference that this design sees in ``POWER`` of all cases, where only one head differs.

    (z_{1 - alpha / 2m} + z_power) times the median of the m heads' standard errors: the first step of Holm's.
    """
    needed = NORMAL.inv_cdf(1 - ALPHA / (2 * len(errors))) + NORMAL.inv_cdf(POWER)
    return needed * float(np.median(errors))


def spearman(one: Mapping[str, float], other: Mapping[str, float]) -> tuple[float, int]:
    """Rank correlation over what both know, ties sharing their mean rank, and how many these are."""
    shared = sorted(one.keys() & other.keys())
    if len(shared) < 3:
        return math.nan, len(shared)
    first, second = (_ranks(np.array([each[name] for name in shared])) for each in (one, other))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan, len(shared)
    return float(np.corrcoef(first, second)[0, 1]), len(shared)


def _ranks(values: Values) -> Values:
    less = (values[:, None] > values).sum(1)
    equal = (values[:, None] == values).sum(1)
    ranks: Values = less + (equal - 1) / 2
    return ranks


def _p(difference: float, error: float) -> float:
    """Two-sided; where nothing varies a difference is sure and equality too."""
    if error == 0:
        return float(difference == 0)
    return 2 * NORMAL.cdf(-abs(difference) / error)
