"""The scores of a set as a report, and what a checkpoint remembers of the best ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_app.tasks.report import Best, Report
from lightning_app.tasks.semantic.metrics import Scores

COLUMNS = ("class", "IoU", "Acc", "pixels")  # the last is the share of the labelled ones


def report_of(scores: Scores, class_names: Sequence[str], devices: int = 1) -> Report:
    """IoU, Acc and share of pixels of each class, and their means."""
    shares = scores.confusion.sum(1) / scores.confusion.sum()
    over = f" over {devices} devices" if devices > 1 else ""
    return Report(
        figures=scores.summary(),
        columns=COLUMNS,
        rows=list(zip(class_names, scores.iou.tolist(), scores.acc.tolist(), shares.tolist(), strict=True)),
        summary=f"{scores.images} images, each counted once{over}. Pixels ignored: {100 * scores.ignored:.1f} %. "
        f"mIoU {100 * scores.miou:.1f} over {int(scores.iou.isfinite().sum())} classes.",
        table="classes",
        counts={"images": scores.images, "ignored": scores.ignored},
        curves=("IoU", "Acc"),
        confusion=scores.confusion.tolist(),
    )


def best_validation(checkpoint: Mapping[str, Any]) -> Best | None:
    """The best validation that a checkpoint of ours remembers; one of before reports kept its scores."""
    state = checkpoint.get("callbacks", {}).get("ClassTable")
    if not state:
        return None
    if "scores" not in state:
        return Best.from_state(state)
    scores, facts = Scores(**state["scores"]), checkpoint["hyper_parameters"]
    names = facts.get("class_names") or [str(number) for number in range(len(scores.confusion))]
    return Best(state["epoch"], report_of(scores, names))
