"""Object keypoint similarity, scores of persons, and the suppression of those seen twice.

Reference: mmpose (evaluation/functional/nms.py, metrics/coco_metric.py).
"""

import torch
from torch import Tensor

KEYPOINT_THRESHOLD = 0.2  # keypoints below it say nothing of their person's score
NMS_THRESHOLD = 0.9


def oks(
    one: Tensor,
    others: Tensor,
    area: Tensor,
    areas: Tensor,
    sigmas: Tensor,
    *,
    counted: Tensor | None = None,
) -> Tensor:
    """Mean over the points of exp(-d^2 / (2 (2 sigma)^2 A)), A the mean of the two areas; 0 where none is counted.

    Shape: one (..., K, 2), others (..., K, 2), area and areas (...) in square pixels, sigmas (K,), counted (..., K)
    bool, all where not given -> (...).

    Reference: cocodataset.org/#keypoints-eval.
    """
    tiny = torch.finfo(torch.float64).eps
    variances = (2 * sigmas).square()
    error = (one - others).square().sum(-1) / variances / ((area + areas) / 2 + tiny)[..., None] / 2
    likeness = torch.exp(-error)
    if counted is None:
        return likeness.mean(-1)
    return (likeness * counted).sum(-1) / counted.sum(-1).clamp(min=1)


def person_scores(box_scores: Tensor, keypoint_scores: Tensor, threshold: float = KEYPOINT_THRESHOLD) -> Tensor:
    """Box score times the mean of the keypoint scores above ``threshold``, 0 where there is none.

    Shape: box_scores (N,), keypoint_scores (N, K) -> (N,).
    """
    counted = keypoint_scores > threshold
    total = (keypoint_scores * counted).sum(-1)
    return box_scores * total / counted.sum(-1).clamp(min=1)


def oks_nms(
    keypoints: Tensor, scores: Tensor, areas: Tensor, sigmas: Tensor, threshold: float = NMS_THRESHOLD
) -> Tensor:
    """Persons kept, best first: one goes where its OKS with a better one that is kept exceeds ``threshold``.

    Shape: keypoints (N, K, 2), scores (N,), areas (N,), sigmas (K,) -> indices (n,).
    """
    order = _falling(scores)
    similar = _pairs(keypoints, areas, sigmas) > threshold
    kept: list[int] = []
    gone = torch.zeros_like(scores, dtype=torch.bool)
    for person in order.tolist():
        if not gone[person]:
            kept.append(person)
            gone |= similar[person]
    return order.new_tensor(kept)


def soft_oks_nms(
    keypoints: Tensor,
    scores: Tensor,
    areas: Tensor,
    sigmas: Tensor,
    threshold: float = NMS_THRESHOLD,
    most: int = 20,
) -> Tensor:
    """At most ``most`` persons, best first; after each the scores of the rest fall by exp(-OKS^2 / threshold).

    Shape: as ``oks_nms``.
    """
    order = _falling(scores)
    falls = torch.exp(-_pairs(keypoints, areas, sigmas).square() / threshold)
    kept: list[int] = []
    scores = scores[order]
    while len(order) and len(kept) < most:
        person, order = order[0], order[1:]
        kept.append(int(person))
        scores = scores[1:] * falls[person, order]
        again = _falling(scores)
        order, scores = order[again], scores[again]
    return order.new_tensor(kept)


def _falling(scores: Tensor) -> Tensor:
    """Indices by falling score, of equal ones the last first, as the reference's reversed sort has them."""
    return scores.argsort(stable=True).flip(0)


def _pairs(keypoints: Tensor, areas: Tensor, sigmas: Tensor) -> Tensor:
    """OKS of each with each, (N, N)."""
    return oks(keypoints[:, None], keypoints, areas[:, None], areas, sigmas)
