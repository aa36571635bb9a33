"""Scores against hand-computed numbers and plain counting."""

import math

import pytest
import torch

from lightning_app.tasks.semantic.metrics import SegmentationMetrics


def test_scores_by_hand() -> None:
    metrics = SegmentationMetrics(4, ignore_index=255)
    truth = torch.tensor([[[0, 0, 0, 1], [1, 255, 255, 0]]])
    predicted = torch.tensor([[[0, 0, 1, 1], [2, 2, 0, 0]]])
    metrics.update(predicted, truth)
    scores = metrics.compute()
    assert scores.confusion.tolist() == [[3, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert scores.iou.tolist()[:3] == pytest.approx([3 / 4, 1 / 3, 0])
    assert scores.acc.tolist()[:2] == pytest.approx([3 / 4, 1 / 2])
    assert math.isnan(scores.iou[3])  # in neither truth nor prediction
    assert math.isnan(scores.acc[2])
    assert scores.summary() == pytest.approx(
        {"mIoU": (3 / 4 + 1 / 3) / 3, "mAcc": 5 / 8, "aAcc": 4 / 6, "fwIoU": (4 * 3 / 4 + 2 / 3) / 6}
    )
    assert scores.images == 1
    assert scores.ignored == pytest.approx(2 / 8)


def test_one_matrix_over_images_of_all_sizes() -> None:
    generator = torch.Generator().manual_seed(0)
    metrics = SegmentationMetrics(3, ignore_index=0)  # an ignored number inside the range of classes
    counts = [[0] * 3 for _ in range(3)]
    ignored = pixels = 0
    for batch, height, width in [(2, 4, 5), (1, 7, 3), (3, 2, 2)]:
        logits = torch.randn(batch, 3, height, width, generator=generator)
        target = torch.randint(3, (batch, height, width), generator=generator)
        metrics.update(logits, target)
        for truth, guess in zip(target.flatten().tolist(), logits.argmax(1).flatten().tolist(), strict=True):
            pixels += 1
            if truth == 0:
                ignored += 1
            else:
                counts[truth][guess] += 1
    scores = metrics.compute()
    assert scores.confusion.dtype == torch.int64
    assert scores.confusion.tolist() == counts
    assert scores.images == 6
    assert scores.ignored == pytest.approx(ignored / pixels)


def test_nothing_labelled_scores_nan() -> None:
    metrics = SegmentationMetrics(2)
    metrics.update(torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2), 255))
    scores = metrics.compute()
    assert all(map(math.isnan, scores.summary().values()))
    assert (scores.images, scores.ignored) == (1, 1.0)


def test_counts_are_exact_beyond_float_precision() -> None:
    confusion = torch.tensor([[2**53 + 1, 0], [0, 1]])
    metrics = SegmentationMetrics(2)
    metrics.confusion += confusion
    metrics.update(torch.zeros(1, 1, 1, dtype=torch.int64), torch.zeros(1, 1, 1, dtype=torch.int64))
    assert metrics.compute().confusion[0, 0] == 2**53 + 2


def test_reset_forgets() -> None:
    metrics = SegmentationMetrics(2)
    metrics.update(torch.ones(1, 2, 2), torch.ones(1, 2, 2))
    metrics.reset()
    metrics.update(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 255))
    scores = metrics.compute()
    assert (int(scores.confusion.sum()), scores.images, scores.ignored) == (0, 1, 1.0)
