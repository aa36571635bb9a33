"""The objects of one picture, annotated or found."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass
class Instances:
    """The objects of one picture. ``instances[keep]`` are some of them.

    Shape: N objects in a picture of H x W pixels.

    Args:
        boxes: (N, 4) left, top, right, bottom in pixels, edges at whole numbers.
        labels: (N,) int64, classes from 0.
        scores: (N,) in 0..1 of what was found; None in an annotation.
        masks: (N, H, W) bool; None where there are only boxes.
        iscrowd: (N,) bool: groups, which are no targets but stay in the evaluation; None is none.
        areas: (N,) pixels by the annotation; None where it does not say.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor | None = None
    masks: Tensor | None = None
    iscrowd: Tensor | None = None
    areas: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, keep: slice | Tensor) -> Self:
        return self._each(lambda value: value[keep])

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return self._each(lambda value: value.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            changed[each.name] = None if value is None else change(value)
        return replace(self, **changed)
