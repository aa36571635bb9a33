"""Semantic segmentation: mIoU, and how images were looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from zoo import details
from zoo.entry import ZooEntry
from zoo.errors import ZooError, shown
from zoo.values import call, is_pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Details(details.Details):
    """What only weights of semantic segmentation have.

    Attributes:
        decode_head: of OpenMMLab's weights, the head's arguments in OpenMMLab's words, ``type`` among them; a cascade
            is a list of two. None of our own weights, whose file tells what it holds.
        auxiliary_head: those of the auxiliary head, or of several.
        neck: those of what stands between backbone and heads.
        preprocess: mean and std of the images, 0..255, where they are not ImageNet's.
        crop: height and width of the training crops.
        align_corners, window, stride: of OpenMMLab's weights, how the figures were measured: with windows of that size
            at every stride, or None = the whole image at once. Of our own weights the file tells that.
    """

    metrics: ClassVar = {"mIoU": "mIoU", "mIoU_ms": "ms+flip"}

    decode_head: dict[str, Any] | list[dict[str, Any]] | None = None
    auxiliary_head: dict[str, Any] | list[dict[str, Any]] | None = None
    neck: dict[str, Any] | None = None
    preprocess: dict[str, Any] | None = None
    crop: tuple[int, int]
    align_corners: bool | None = None
    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None

    def check(self) -> None:
        for name in ("crop", "window", "stride"):
            self._check(name, is_pair(getattr(self, name)), "[height, width]")
        self._check("stride", (self.window is None) == (self.stride is None), "window and stride go together")
        parts = [("decode_head", stage) for stage in self.stages]
        parts += [("auxiliary_head", head) for head in self.auxiliary_heads]
        for name, part in [*parts, *([("neck", self.neck)] if self.neck else [])]:
            self._check(name, isinstance(part, dict) and isinstance(part.get("type"), str), "needs a type")
        for key in ("mean", "std") if self.preprocess else ():
            numbers = (self.preprocess or {}).get(key)
            good = isinstance(numbers, list) and all(type(each) in (int, float) for each in numbers)
            self._check("preprocess", good and len(numbers or ()) == 3, "needs mean and std, three numbers each")

    def check_published(self) -> None:
        self._check("decode_head", bool(self.stages), "needs a type")
        self._check("align_corners", self.align_corners is not None, "true or false")

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The decode heads of OpenMMLab's weights: one, or the stages of a cascade."""
        if self.decode_head is None:
            return []
        return self.decode_head if isinstance(self.decode_head, list) else [self.decode_head]

    @property
    def auxiliary_heads(self) -> list[dict[str, Any]]:
        """The auxiliary heads of OpenMMLab's weights: none, one or several."""
        extra = self.auxiliary_head
        return extra if isinstance(extra, list) else [] if extra is None else [extra]

    def lines(self) -> dict[str, str]:
        if not self.stages:
            return {}
        extra = "; ".join(call(head["type"], head) for head in self.auxiliary_heads)
        neck = {"neck": call(self.neck["type"], self.neck)} if self.neck else {}
        return {
            **neck,
            "decode head": "; then ".join(call(stage["type"], stage) for stage in self.stages),
            "auxiliary head": extra or "none",
        }

    def protocol(self, told: Mapping[str, Any]) -> str:
        if self.align_corners is None:
            own = told.get("protocol")
            own = own.items() if isinstance(own, dict) else ()
            return shown(", ".join(f"{name} {value}" for name, value in own if value), 300)
        how = "whole images"
        if self.window and self.stride:
            how = f"windows of {self.window[0]}x{self.window[1]} every {self.stride[0]}x{self.stride[1]} pixels"
        return f"{how}, align_corners {'on' if self.align_corners else 'off'}"

    def training(self) -> str:
        return f"crops of {self.crop[0]}x{self.crop[1]}"


def details_of(entry: ZooEntry) -> Details:
    """The entry's details.

    Raises:
        ZooError: it is of another task.
    """
    if not isinstance(entry.details, Details):
        raise ZooError(f"{entry.id} is of another task: {entry.task}")
    return entry.details
