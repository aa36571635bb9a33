"""COCO's figures of a set as a report."""

import math
from collections.abc import Collection, Sequence

from lightning_app.tasks.coco_scores import CocoScores, ImageResult, coco_scores
from lightning_app.tasks.report import Report


def report_of(
    images: Collection[ImageResult],
    class_names: Sequence[str],
    category_ids: Sequence[int],
    *,
    masks: bool,
    devices: int = 1,
) -> Report:
    """AP of boxes and of masks, and both of each class."""
    kinds = {"box": coco_scores("bbox", images, category_ids)}
    if masks:
        kinds = {"mask": coco_scores("segm", images, category_ids), **kinds}
    objects = [each for image in images for each in image.truth]
    crowds = sum(each["iscrowd"] for each in objects)
    counts = dict.fromkeys(category_ids, 0)
    for each in objects:
        counts[each["category_id"]] += not each["iscrowd"]
    total = len(objects) - crowds
    over = f" over {devices} devices" if devices > 1 else ""
    columns = [scores.per_class for scores in kinds.values()]
    shares = [count / total if total else math.nan for count in counts.values()]
    return Report(
        figures={f"{kind}_{name}": value for kind, scores in kinds.items() for name, value in scores.figures.items()},
        columns=("class", *(f"{kind}_AP" for kind in kinds), "share"),
        rows=list(zip(class_names, *columns, shares, strict=True)),
        summary=f"{len(images)} images, each counted once{over}, with {total} objects and {crowds} crowds. "
        + " ".join(_line(kind, scores) for kind, scores in kinds.items()),
        table="classes",
        counts={"images": len(images), "objects": total},
        curves=tuple(f"{kind}_AP" for kind in kinds),
    )


def _line(kind: str, scores: CocoScores) -> str:
    of = {name: "-" if math.isnan(value) else f"{100 * value:.1f}" for name, value in scores.figures.items()}
    return (
        f"{kind.capitalize()} AP {of['AP']} (at IoU 0.50 {of['AP50']}, 0.75 {of['AP75']}; "
        f"small {of['AP_small']}, medium {of['AP_medium']}, large {of['AP_large']})."
    )
