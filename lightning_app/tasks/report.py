"""What a task says of an evaluated set, and what it draws of a picture: plain data that every callback can use."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_app.util.files import replacing

JPEG_SIDE = 65_500  # pixels that the format can hold


@dataclass(frozen=True)
class Report:
    """The figures of a whole set, over all devices. Figures and cells of the table are shares between 0 and 1.

    Args:
        figures: what a run is judged by, the task's monitor among them; logged as stage/name, and shown while it runs.
        columns: of the table; the first one says what a row is, such as "class".
        rows: the name of each row and its cells; nan where there is none.
        summary: the line below the table.
        table: what the rows are called in a JSON file.
        counts: what else is known of the set, such as how many images it has; logged too.
        curves: columns whose every cell is logged, as stage/column/row.
        confusion: how often each row (the truth) was taken for each other one.
    """

    figures: Mapping[str, float]
    columns: Sequence[str] = ()
    rows: Sequence[tuple[Any, ...]] = ()
    summary: str = ""
    table: str = "rows"
    counts: Mapping[str, float] = field(default_factory=dict)
    curves: Sequence[str] = ()
    confusion: Sequence[Sequence[int]] | None = None

    @property
    def names(self) -> list[str]:
        """Of the rows."""
        return [row[0] for row in self.rows]

    def logged(self) -> dict[str, float]:
        """Everything but the figures that a logger gets."""
        places = {name: self.columns.index(name) for name in self.curves}
        curves = {f"{name}/{row[0]}": row[place] for row in self.rows for name, place in places.items()}
        return {name: float(value) for name, value in (dict(self.counts) | curves).items()}

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it: null for nan."""
        rows = [
            {"name": row[0], **dict(zip(self.columns[1:], map(_number, row[1:]), strict=True))} for row in self.rows
        ]
        figures = {name: _number(value) for name, value in (dict(self.counts) | dict(self.figures)).items()}
        confusion = {} if self.confusion is None else {"confusion": self.confusion}
        return figures | ({self.table: rows} if self.columns else {}) | confusion


@dataclass(frozen=True)
class Best:
    """The best validation of a run: its epoch, counted from 1, and its report."""

    epoch: int
    report: Report

    def state(self) -> dict[str, Any]:
        """Itself in plain types, as a checkpoint keeps it."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """What a checkpoint kept."""
        report = state["report"]
        return cls(state["epoch"], Report(**{**report, "rows": [tuple(row) for row in report["rows"]]}))


@dataclass(frozen=True)
class Box:
    """An object's box: left, top, right, bottom in pixels, a number that labels name, and how sure it is."""

    corners: tuple[float, float, float, float]
    label: int
    score: float


@dataclass(frozen=True)
class Drawing:
    """A picture of what was predicted; a task whose result is more than a picture makes a class below this one.

    Shape: photograph (H, W, 3) uint8 RGB; each mask (H, W) uint8.

    Args:
        name: of the image.
        masks: maps of numbers by name, such as prediction and ground_truth.
        labels: what the numbers in them, and those of boxes, mean.
        boxes: of objects, by the same names as masks.
        results: entries of the one JSON file of a prediction, in the words of the task's field.
    """

    name: str
    photograph: NDArray[np.uint8]
    masks: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    labels: Mapping[int, str] = field(default_factory=dict)
    boxes: Mapping[str, Sequence[Box]] = field(default_factory=dict)
    results: Sequence[Mapping[str, Any]] = ()

    @property
    def scores(self) -> Mapping[str, float]:
        """Figures of this image alone, between 0 and 1, the one to rank by first; none where there are none."""
        return {}

    def overlay(self) -> Image.Image:
        """The picture for people."""
        return Image.fromarray(self.photograph)

    def save(self, target: Path) -> None:
        """Write the prediction beside ``target``, a path ending in .png: here the overlay alone, as ..._overlay.jpg."""
        save_jpeg(self.overlay(), target.with_name(f"{target.stem}_overlay.jpg"))


def save_jpeg(picture: Image.Image, path: Path) -> None:
    """Write a picture as a JPEG, smaller where it is larger than the format can hold."""
    picture.thumbnail((JPEG_SIDE, JPEG_SIDE))
    with replacing(path) as temporary:
        picture.save(temporary, "JPEG", quality=90)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
