"""Masks as COCO writes them: polygons, and the lengths of runs."""

from typing import TypedDict

import numpy as np
from faster_coco_eval.core import mask as masks
from numpy.typing import NDArray

Polygons = list[list[float]]  # each x1, y1, x2, y2, ...


class RLE(TypedDict):
    """A mask as the lengths of its runs down the columns, zeros first, compressed by COCO's code."""

    size: list[int]  # height, width
    counts: bytes


def decode(rle: RLE) -> NDArray[np.bool_]:
    """Shape: (H, W)."""
    decoded: NDArray[np.bool_] = np.ascontiguousarray(masks.decode(dict(rle))).astype(bool)
    return decoded


def encode(mask: NDArray[np.bool_]) -> RLE:
    """Shape: mask (H, W)."""
    encoded: RLE = masks.encode(np.asfortranarray(mask, dtype=np.uint8))
    return encoded


def to_rle(segmentation: Polygons | RLE, height: int, width: int) -> RLE:
    """Polygons as COCO draws them, as one mask; an RLE as it is."""
    if isinstance(segmentation, dict):
        return segmentation
    merged: RLE = masks.merge(masks.frPyObjects(segmentation, height, width))
    return merged


def area(rle: RLE) -> int:
    """Pixels of a mask."""
    return int(masks.area(dict(rle)))


def box(rle: RLE) -> list[float]:
    """x, y, width, height of the pixels of a mask."""
    sides: list[float] = masks.toBbox(dict(rle)).tolist()
    return sides


def compressed(runs: list[int], height: int, width: int) -> RLE:
    """Of an RLE whose runs are a list."""
    encoded: RLE = masks.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": encoded["counts"]}


def runs_of(counts: str) -> list[int]:
    """The runs of a compressed RLE: digits of base 32, the lowest first, each a difference to the run two before.

    Raises:
        ValueError: it is no such code.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        digit = ord(letter) - 48
        if not 0 <= digit < 64 or shift > 50:
            raise ValueError(counts)
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError(counts)
    return runs
