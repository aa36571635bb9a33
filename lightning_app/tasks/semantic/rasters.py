"""Class maps of pictures that are read and written by windows, in memory that does not grow with them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lightning_app.backbones.base import Backbone
from lightning_app.data.rasters import BLOCK, NO_CLASS, Raster, writing
from lightning_app.tasks.info import evaluating
from lightning_app.tasks.semantic.draw import overlay
from lightning_app.tasks.semantic.inference import predict_classes
from lightning_app.tasks.semantic.protocol import EvaluationProtocol, Size, fitted
from lightning_app.tasks.semantic.segmenter import WINDOW, Segmenter
from lightning_app.util.errors import InputError

ROOM: Final = 128 * 2**20  # bytes of sums and class numbers that are held at once
EXTRA: Final = 4  # numbers of 4 bytes for each pixel beside those of its classes: how many windows, its class
PREVIEW: Final = 2048  # pixels of the longer side of the picture for people
Advance = Callable[[float], None]


@dataclass(frozen=True)
class RasterSegmentation:
    """What was seen in a picture, which itself is on disk.

    Args:
        size: height and width.
        shares: share of the pixels that have data of each class that is there, the largest first.
        data: share of the pixels that have data.
        protocol: how the picture was looked at.
        preview: the picture for people, smaller.
        left_out: bands that the network did not see.
    """

    size: Size
    shares: Mapping[str, float]
    data: float
    protocol: EvaluationProtocol
    preview: Image.Image
    left_out: int


def segment_raster(
    segmenter: Segmenter, source: Path, target: Path, advance: Advance = lambda share: None
) -> RasterSegmentation:
    """Write the class numbers of a TIFF to another one, which lies at the same place on the map.

    Windows are looked at in the file's own resolution, and their logits averaged where they overlap. Pixels without
    data get 255. Never more than a few windows are in memory.

    Raises:
        InputError: a file that cannot be used (``BadFile``), views at several scales, or a target that is the source.
    """
    network, classes, mean = segmenter.network, segmenter.classes, channel_means(segmenter)
    if target.exists() and target.samefile(source):
        raise InputError(f"{source} would be overwritten by its own result: give another --out")
    if len(classes) > NO_CLASS:
        raise InputError(f"{len(classes)} classes leave no number for pixels without data: at most {NO_CLASS}")
    counts = np.zeros(256, dtype=np.int64)
    with Raster(source, len(mean), mean) as raster:
        size = raster.shape[2], raster.shape[3]
        how = raster_protocol(segmenter, size)
        preview = _Preview(size)
        tags = {"classes": "\n".join(f"{number} {name}" for number, name in enumerate(classes))}
        with writing(target, raster, segmenter.palette, tags) as write, evaluating(network), torch.inference_mode():
            tiles = predict_classes(segmenter.logits, raster, size, how, _tile(how, len(classes)))
            for rows, columns, ids in _in_blocks(tiles, size):
                pixels, data = raster.read((rows, columns))
                ids[~data] = NO_CLASS
                counts += np.bincount(ids.ravel(), minlength=256)
                write(rows, columns, ids)
                preview.take(rows, columns, pixels, ids)
                advance(ids.size / (size[0] * size[1]))
        left_out = raster.left_out
    with_data = int(counts[: len(classes)].sum())
    shares = {name: count / max(with_data, 1) for name, count in zip(classes, counts.tolist(), strict=False) if count}
    return RasterSegmentation(
        size,
        dict(sorted(shares.items(), key=lambda pair: -pair[1])),
        with_data / (size[0] * size[1]),
        how,
        overlay(preview.pixels, preview.ids, classes, segmenter.palette),
        left_out,
    )


def channel_means(segmenter: Segmenter) -> Sequence[float]:
    """The mean of each channel that the network sees, in 0..1."""
    backbone = segmenter.network.backbone
    assert isinstance(backbone, Backbone)
    return backbone.mean


def raster_protocol(segmenter: Segmenter, size: Size) -> EvaluationProtocol:
    """How a raster is looked at: in the windows that were asked for or that the weights know, at its own resolution.

    Raises:
        InputError: it cannot be by windows alone.
    """
    options, how = segmenter.options, segmenter.measured
    if options.tta or options.without_windows:
        asked = "--tta" if options.tta else "--window none"
        raise InputError(f"{asked} needs the whole picture in memory, and this one is read by windows: leave it out")
    if options.crop is None and how.mode == "whole":
        options = replace(options, window=WINDOW if how.fit is None else fitted(size, how))
    how = Segmenter(segmenter.network, how, segmenter.classes, segmenter.palette, options).protocol(size)
    return replace(how, mode="slide", scales=(1.0,), flip=False, fit=None, antialias=False)


def _tile(how: EvaluationProtocol, classes: int) -> Size:
    """A window high, and as many whole blocks wide as there is room for."""
    assert how.crop is not None
    return how.crop[0], max(ROOM // (4 * (classes + EXTRA)) // how.crop[0] // BLOCK, 1) * BLOCK


def _in_blocks(
    tiles: Iterator[tuple[tuple[slice, slice], Tensor]], size: Size
) -> Iterator[tuple[slice, slice, NDArray[np.uint8]]]:
    """Class numbers of tiles that come from above to below, in whole rows of blocks."""
    waiting = np.empty((0, 0), dtype=np.uint8)
    top = 0
    for (rows, columns), classes in tiles:
        ids = classes[0].to("cpu", torch.uint8).numpy()
        if rows.start == 0:
            waiting, top = ids, 0
        else:
            waiting = np.concatenate([waiting, ids])
        stop = rows.stop if rows.stop == size[0] else rows.stop // BLOCK * BLOCK
        if stop > top:
            yield slice(top, stop), columns, waiting[: stop - top].copy()
            waiting, top = waiting[stop - top :], stop


class _Preview:
    """The picture for people, of blocks as they are written: each of its pixels is the one in the middle of what it
    stands for, so that the file is not read from the start once more.

    Args:
        size: of the whole, height and width.
    """

    def __init__(self, size: Size) -> None:
        shrink = min(PREVIEW / max(size), 1.0)
        counts = [round(side * shrink) or 1 for side in size]
        self.places = [((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip(counts, size, strict=True)]
        height, width = map(len, self.places)
        self.pixels = np.zeros((height, width, 3), dtype=np.uint8)
        self.ids = np.zeros((height, width), dtype=np.uint8)

    def take(self, rows: slice, columns: slice, pixels: NDArray[np.uint8], ids: NDArray[np.uint8]) -> None:
        """What a block (C, h, w) and its class numbers (h, w) give to it."""
        parts, chosen = [], []
        for places, part in zip(self.places, (rows, columns), strict=True):
            first, last = np.searchsorted(places, (part.start, part.stop))
            parts.append(slice(first, last))
            chosen.append(places[first:last] - part.start)
        grid = np.ix_(*chosen)
        self.ids[parts[0], parts[1]] = ids[grid]
        self.pixels[parts[0], parts[1]] = _rgb(pixels[:, *grid])


def _rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The first three bands, or the one three times, as a picture (H, W, 3)."""
    shown = pixels[:3] if len(pixels) >= 3 else pixels[:1].repeat(3, axis=0)
    return shown.transpose(1, 2, 0)
