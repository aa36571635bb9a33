"""Keypoints: COCO's AP by OKS, whose boxes it was measured with, and what an estimator is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from zoo import details
from zoo.entry import ZooEntry
from zoo.errors import ZooError
from zoo.values import call, is_pair

PUBLISHED = "td-hm_"  # what the names of mmpose's top-down heatmap configurations begin with


@dataclass(frozen=True, slots=True, kw_only=True)
class Details(details.Details):
    """What only weights of pose estimators have.

    Attributes:
        input_size: height and width of the crops.
        boxes: whose boxes the figures were measured with: a detector's file, "ground truth" or "whole image".
        codec: of mmpose's weights, what the maps mean, in mmpose's words but for the sizes. None of our own weights,
            whose file tells it.
        heatmap_head, neck: of mmpose's weights, likewise.
        flip_test: the figures are of the mean with the mirrored crops.
        caution: what else is published of this file, and wrong.
    """

    metrics: ClassVar = {"AP": "AP", "AR": "AR", "AP50": "AP50", "AP75": "AP75", "AR50": "AR50"}

    input_size: tuple[int, int]
    boxes: str
    codec: dict[str, Any] | None = None
    heatmap_head: dict[str, Any] | None = None
    neck: dict[str, Any] | None = None
    flip_test: bool = True
    caution: str | None = None

    def check(self) -> None:
        self._check("input_size", is_pair(self.input_size), "[height, width]")
        for name in ("codec", "heatmap_head", "neck"):
            part = getattr(self, name)
            self._check(name, part is None or isinstance(part.get("type"), str), "needs a type")

    def check_published(self) -> None:
        for name in ("codec", "heatmap_head"):
            self._check(name, getattr(self, name) is not None, "needs a type")

    def begins(self, head: str) -> str:
        return PUBLISHED if self.codec else f"{head}_"

    def lines(self) -> dict[str, str]:
        parts = {"codec": self.codec, "head": self.heatmap_head, "neck": self.neck}
        lines = {name: call(part["type"], part) for name, part in parts.items() if part}
        return lines | ({"caution": self.caution} if self.caution else {})

    def protocol(self, told: Mapping[str, Any]) -> str:
        flip = "mean with the mirrored crops" if self.flip_test else "no mirroring"
        return f"crops of {self.input_size[0]}x{self.input_size[1]}, {flip}; boxes: {self.boxes}"

    def training(self) -> str:
        return f"crops of {self.input_size[0]}x{self.input_size[1]}"


def details_of(entry: ZooEntry) -> Details:
    """The entry's details.

    Raises:
        ZooError: it is of another task.
    """
    if not isinstance(entry.details, Details):
        raise ZooError(f"{entry.id} is of another task: {entry.task}")
    return entry.details
