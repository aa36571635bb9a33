"""The field's figures: COCO's AP and AR by OKS, and the share of points that are close enough (PCK)."""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_app.tasks.coco_scores import ImageResult, coco_scores
from lightning_app.tasks.pose.oks import oks
from lightning_app.tasks.report import Report

THRESHOLDS = (0.05, 0.1, 0.2)  # of the longer side of a person's box
MAIN = 0.1

Array = NDArray[np.float64]


def pck(predicted: Array, marked: Array, valid: NDArray[np.bool_], sizes: Array, threshold: float) -> Array:
    """Share of each keypoint's valid points that lie within ``threshold`` of the size; nan where none is valid.

    sqrt(sum_axes ((p - q) / size)^2) < threshold.

    Shape: predicted and marked (N, K, 2), valid (N, K), sizes (N, 2), one for each axis -> (K,).

    Reference: mmpose's keypoint_pck_accuracy.
    """
    distances = np.linalg.norm((predicted - marked) / sizes[:, None], axis=-1)
    hits, count = ((distances < threshold) & valid).sum(0), valid.sum(0)
    shares: Array = np.divide(hits, count, out=np.full(len(count), np.nan), where=count > 0)
    return shares


def report_of(
    images: Collection[ImageResult],
    names: Sequence[str],
    sigmas: Sequence[float],
    *,
    category_id: int = 1,
    thing: str = "person",
    box_source: str = "boxes",
    devices: int = 1,
) -> Report:
    """AP and AR of a whole set, and PCK of each keypoint.

    Args:
        category_id: of what the keypoints are of, in truth and results.
        thing: the same in words.
        box_source: where was looked, in words: no AP says anything without it.
    """
    scores = coco_scores("keypoints", images, [category_id], sigmas=sigmas)
    predicted, marked, valid, sizes = matched(images, np.array(sigmas))
    shares = [pck(predicted, marked, valid, sizes, threshold) for threshold in THRESHOLDS]
    labelled = valid.mean(0) if len(valid) else np.zeros(len(names))
    mean = float(np.nanmean(shares[THRESHOLDS.index(MAIN)])) if valid.any() else float("nan")
    over = f" over {devices} devices" if devices > 1 else ""
    found = sum(len(image.results) for image in images)
    figures = {name: float(value) for name, value in scores.figures.items()} | {"PCK": mean}
    return Report(
        figures=figures,
        columns=("keypoint", *(f"PCK@{threshold:g}" for threshold in THRESHOLDS), "labelled"),
        rows=[(name, *map(float, row)) for name, *row in zip(names, *shares, labelled, strict=True)],
        summary=f"{len(images)} images, each counted once{over}: {len(valid)} marked, {found} found ({thing}, in "
        f"{box_source}). AP {100 * figures['AP']:.1f}, AP50 {100 * figures['AP50']:.1f}, AR {100 * figures['AR']:.1f} "
        f"by OKS; PCK@{MAIN:g} of the box {100 * mean:.1f}.",
        table="keypoints",
        counts={"images": len(images), "marked": len(valid), "found": found},
        curves=(f"PCK@{MAIN:g}",),
    )


def matched(images: Collection[ImageResult], sigmas: Array) -> tuple[Array, Array, NDArray[np.bool_], Array]:
    """Each marked person beside the prediction that is nearest to it by OKS; infinitely far where there is none.

    Crowds and people without a labelled point are left out.

    Shape: predicted (N, K, 2), marked (N, K, 2), valid (N, K), sizes (N, 2): the longer side of the box, twice.
    """
    points = len(sigmas)
    predicted, marked, sizes = [], [], []
    for image in images:
        found = np.array([each["keypoints"] for each in image.results], dtype=float).reshape(-1, points, 3)[..., :2]
        for each in image.truth:
            if each["iscrowd"] or not each.get("num_keypoints"):
                continue
            truth = np.array(each["keypoints"], dtype=float).reshape(points, 3)
            nearest = found[_nearest(found, truth, each["area"], sigmas)] if len(found) else truth[:, :2] + np.inf
            predicted.append(nearest)
            marked.append(truth)
            sizes.append([max(each["bbox"][2:])] * 2)
    stacked = np.array(marked).reshape(-1, points, 3)
    return (
        np.array(predicted).reshape(-1, points, 2),
        stacked[..., :2],
        stacked[..., 2] > 0,
        np.array(sizes).reshape(-1, 2),
    )


def _nearest(found: Array, truth: Array, area: float, sigmas: Array) -> int:
    one, others = torch.from_numpy(truth[:, :2]), torch.from_numpy(found)
    size = torch.tensor(area, dtype=torch.float64)
    labelled = torch.from_numpy(truth[:, 2] > 0).expand(len(found), -1)
    return int(oks(one, others, size, size.expand(len(found)), torch.from_numpy(sigmas), counted=labelled).argmax())
