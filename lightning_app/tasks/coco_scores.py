"""COCO's average precision of boxes, masks and keypoints, by the official protocol."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch.distributed as dist
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray
from torchmetrics import Metric

from lightning_app.data.coco import CocoFile
from lightning_app.data.coco_records import CocoAnnotation, CocoImage
from lightning_app.data.rle import to_rle

Kind = Literal["bbox", "segm", "keypoints"]
RESULT: Final[Mapping[Kind, str]] = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
FIGURES: Final[Mapping[Kind, tuple[str, ...]]] = {  # in the order of the official statistics
    "bbox": ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100"),
    "segm": ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100"),
    "keypoints": (
        *("AP", "AP50", "AP75", "AP_medium", "AP_large"),
        *("AR", "AR50", "AR75", "AR_medium", "AR_large"),
    ),
}


@dataclass(frozen=True)
class ImageResult:
    """One image with what is there and what was found, in the words of COCO's JSON.

    Args:
        truth: annotations with bbox, area, iscrowd and category_id, and segmentation (an RLE) or keypoints.
        results: score and category_id, and bbox, segmentation (an RLE) or keypoints.
    """

    id: int
    height: int
    width: int
    truth: Sequence[Mapping[str, Any]]
    results: Sequence[Mapping[str, Any]]

    @classmethod
    def of(
        cls, image: CocoImage, annotations: Iterable[CocoAnnotation], results: Sequence[Mapping[str, Any]]
    ) -> "ImageResult":
        """What was found in an image of a file."""
        truth = [truth_of(each, image.height, image.width) for each in annotations]
        return cls(image.id, image.height, image.width, truth, results)


def truth_of(annotation: CocoAnnotation, height: int, width: int) -> dict[str, Any]:
    """An annotation as the scores take it: area and crowds as the file says."""
    found = {
        "category_id": annotation.category_id,
        "bbox": list(annotation.bbox),
        "area": annotation.area,
        "iscrowd": int(annotation.iscrowd),
    }
    if annotation.segmentation is not None:
        found["segmentation"] = to_rle(annotation.segmentation, height, width)
    if annotation.keypoints:
        found |= {"keypoints": list(annotation.keypoints), "num_keypoints": annotation.num_keypoints}
    return found


@dataclass(frozen=True)
class CocoScores:
    """The figures of a set, nan where there is nothing to find.

    Args:
        figures: AP (mean over IoU or OKS 0.50 to 0.95), AP50, AP75, by size, and recalls.
        per_class: AP of each category, in the order of their ids.
    """

    figures: Mapping[str, float]
    per_class: Sequence[float]


def coco_scores(
    kind: Kind, images: Collection[ImageResult], category_ids: Sequence[int], *, sigmas: Sequence[float] | None = None
) -> CocoScores:
    """Average precision by COCO's protocol: at most 100 results an image and class (20 of keypoints).

    Lin et al., "Microsoft COCO: Common Objects in Context", 2014. Computed by faster-coco-eval.

    Args:
        kind: what is compared.
        sigmas: of each keypoint, for OKS; none = those of COCO's 17.
    """
    field_of_kind = RESULT[kind]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in images:
        for each in image.truth:
            # ids count from 1: to the official code a match with id 0 is no match
            annotations.append({**each, "id": len(annotations) + 1, "image_id": image.id})
        for each in image.results:
            # nothing but what is compared: beside a bbox, masks would be sorted by the size of that; keypoints are, by
            # the official code as by mmpose, and by the extent of their points where there is no bbox
            counted = ("category_id", "score", field_of_kind, *(("bbox",) if kind == "keypoints" else ()))
            kept = {name: each[name] for name in counted if name in each}
            results.append({**kept, "image_id": image.id})
    truth = COCO(
        {
            "images": [{"id": image.id, "height": image.height, "width": image.width} for image in images],
            "annotations": annotations,
            "categories": [{"id": number, "name": str(number)} for number in category_ids],
        }
    )
    own_sigmas = None if sigmas is None else np.asarray(sigmas, dtype=np.float64)
    found = COCOeval_faster(truth, truth.loadRes(results), kind, kpt_oks_sigmas=own_sigmas)
    found.params.catIds = list(category_ids)
    found.evaluate()
    found.accumulate()
    found.summarize()
    statistics = [float(value) if value >= 0 else float("nan") for value in found.stats]
    figures = dict(zip(FIGURES[kind], statistics, strict=False))
    precision = found.eval["precision"][:, :, :, 0, -1]  # IoU, recall, category
    return CocoScores(figures, [_mean(precision[:, :, place]) for place in range(len(category_ids))])


def _mean(precision: NDArray[np.float64]) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float("nan")


class CocoResults(Metric):
    """Results of images, gathered over devices at the end, each image once."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.images: dict[int, ImageResult] = {}

    def update(self, image: ImageResult) -> None:
        """Keep the results of one image."""
        self.images[image.id] = image

    def compute(self) -> Collection[ImageResult]:
        """The results of all devices, in the order of the images' ids."""
        parts: list[dict[int, ImageResult]] = [self.images]
        if dist.is_available() and dist.is_initialized():
            parts = [{} for _ in range(dist.get_world_size())]
            dist.all_gather_object(parts, self.images)
        together = {number: image for part in parts for number, image in part.items()}
        return dict(sorted(together.items())).values()  # no list: torchmetrics would copy all that is in it

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self.images = {}


def results_of_file(file: CocoFile, results: Iterable[Mapping[str, Any]]) -> list[ImageResult]:
    """Results in COCO's JSON beside the truth of a file."""
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for each in results:
        by_image.setdefault(each["image_id"], []).append(each)
    return [ImageResult.of(image, file.of(image), by_image.get(image.id, [])) for image in file.images]
