"""The field's scores: one confusion matrix over the whole set, every image counted once."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_confusion_matrix


class Scores(NamedTuple):
    """What a confusion matrix says; all figures are shares between 0 and 1.

    A class in neither truth nor prediction has IoU nan, a class that is not in the truth has Acc nan; means leave these
    out.
    """

    confusion: Tensor  # (K, K) pixels, rows = truth, columns = prediction
    images: int
    ignored: float  # share of all pixels

    @property
    def iou(self) -> Tensor:
        """(K,) TP / (TP + FP + FN)."""
        hits = self.confusion.diagonal()
        return hits.double() / (self.confusion.sum(0) + self.confusion.sum(1) - hits)

    @property
    def acc(self) -> Tensor:
        """(K,) TP / (TP + FN), the recall of each class."""
        return self.confusion.diagonal().double() / self.confusion.sum(1)

    @property
    def miou(self) -> float:
        """Mean of IoU over classes."""
        return self.iou.nanmean().item()

    @property
    def macc(self) -> float:
        """Mean of Acc over classes."""
        return self.acc.nanmean().item()

    @property
    def aacc(self) -> float:
        """Share of labelled pixels that are right."""
        return (self.confusion.diagonal().sum().double() / self.confusion.sum()).item()

    @property
    def fwiou(self) -> float:
        """Mean of IoU weighted by each class's share of the labelled pixels."""
        truth = self.confusion.sum(1)
        return ((self.iou * truth).nansum() / truth.sum()).item()

    def summary(self) -> dict[str, float]:
        """The four figures under the names the field gives them."""
        return {"mIoU": self.miou, "mAcc": self.macc, "aAcc": self.aacc, "fwIoU": self.fwiou}


class SegmentationMetrics(Metric):
    """Confusion matrix, images and ignored pixels over a whole set, summed over ranks as integers.

    Shape: update(predictions, target) takes logits (B, K, H, W) or class numbers (B, H, W), and a target (B, H, W);
    compute() gives ``Scores``.
    """

    is_differentiable = False
    full_state_update = False
    confusion: Tensor
    images: Tensor
    ignored: Tensor

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("ignored", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, target: Tensor) -> None:
        """Count a batch."""
        self.confusion += multiclass_confusion_matrix(
            predictions, target, self.num_classes, ignore_index=self.ignore_index, validate_args=False
        )
        self.images += len(target)
        self.ignored += (target == self.ignore_index).sum()

    def compute(self) -> Scores:
        """Scores of all batches on all ranks."""
        confusion, ignored = self.confusion.cpu(), self.ignored.cpu()
        return Scores(confusion, int(self.images), (ignored / (ignored + confusion.sum())).item())
