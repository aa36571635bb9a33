"""From images to logits at the label's size: whole or by sliding window, mirrored and at several scales.

Pure functions of a ``model`` that maps images (B, C, H, W) to logits (B, K, h, w).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightning_app.tasks.semantic.protocol import EvaluationProtocol, Size, fitted
from lightning_app.tasks.semantic.windows import Model, Readable, Slices, resized, sliding_window, strips, summable
from lightning_app.util.errors import InputError


def predict(model: Model, images: Tensor, size: Size, protocol: EvaluationProtocol) -> Tensor:
    """Logits at the label's size.

    One view (one scale, not mirrored): the model's logits, resized. Several: each view's logits are resized to the
    label's size and their softmax probabilities averaged there, as the field does; the result is
    log(mean_v softmax(logits_v)), so that its softmax is that average.

    Shape: images (B, C, H, W) -> (B, K, *size).

    Consulted: mmsegmentation's slide_inference, postprocess_result and SegTTAModel.
    """
    everywhere = (slice(0, size[0]), slice(0, size[1]))
    return _average((view.logits(everywhere) for view in _scaled_and_mirrored(model, images, size, protocol)), protocol)


def predict_classes(
    model: Model, images: Tensor | Readable, size: Size, protocol: EvaluationProtocol, tile: Size
) -> Iterator[tuple[Slices, Tensor]]:
    """Class numbers of the same prediction, where the logits of a whole label would not fit into memory.

    Logits are held for a tile at a time. Windows that reach into several tiles are looked at again for each of them,
    which costs least where tiles are multiples of the stride; views that are no larger than a tile are kept. A single
    view of the label's size goes down with its windows, in tiles of no more rows than theirs, so that none is looked at
    again for the tile below.

    Windows are taken from the images one after another, so that a ``Readable`` need not have them in memory; other
    views resize the whole and need a tensor.

    Shape: images (B, C, H, W) -> of each tile, its place in the label and its (B, h, w).
    """
    views = list(_scaled_and_mirrored(model, images, size, protocol, largest=tile[0] * tile[1]))
    if len(views) == 1 and views[0].shape == size and not views[0].kept:
        for columns in _parts(size[1], tile[1]):
            for rows, classes in strips(model, images, columns, protocol):
                yield (rows, columns), classes
        return
    for rows in _parts(size[0], tile[0]):
        for columns in _parts(size[1], tile[1]):
            yield (rows, columns), _average((view.logits((rows, columns)) for view in views), protocol).argmax(1)


@dataclass
class _View:
    """Images at one scale, mirrored or not, and their logits on any region of the label."""

    model: Model
    original: Tensor | Readable
    shape: Size  # at which the model sees them
    mirrored: bool
    size: Size  # of the label
    protocol: EvaluationProtocol
    kept: bool  # logits of the whole view are computed once and kept

    def logits(self, region: Slices) -> Tensor:
        """Logits of a region of the label, at the label's resolution."""
        align_corners = self.protocol.align_corners
        shape = (self._whole.shape[-2], self._whole.shape[-1]) if self.kept else self.shape
        if shape == self.size:
            return self._whole[(..., *region)] if self.kept else self._view_logits(region)
        at_rows, at_columns = (
            _positions(part, source, target, align_corners)
            for part, source, target in zip(region, shape, self.size, strict=True)
        )
        rows, columns = _around(at_rows, shape[0]), _around(at_columns, shape[1])
        logits = self._whole[..., rows, columns] if self.kept else self._view_logits((rows, columns))
        if (len(at_rows), len(at_columns)) == self.size:
            return resized(logits, self.size, align_corners)
        return _sample(_sample(logits, -2, at_rows - rows.start), -1, at_columns - columns.start)

    @cached_property
    def _images(self) -> Tensor | Readable:
        if self.original.shape[-2:] == self.shape and not self.mirrored:
            return self.original
        assert isinstance(self.original, Tensor)
        images = resized(self.original, self.shape, antialias=self.protocol.antialias)
        return images.flip(-1) if self.mirrored else images

    @cached_property
    def _whole(self) -> Tensor:
        return self._view_logits((slice(0, self.shape[0]), slice(0, self.shape[1])))

    def _view_logits(self, region: Slices) -> Tensor:
        """Logits of a region of the view; of a whole view, at the model's resolution."""
        how = self.protocol
        if how.mode == "whole":
            images = self._images
            assert isinstance(images, Tensor)
            logits = summable(self.model(images), how.offload)
        else:
            assert how.crop is not None
            rows, columns = region
            if self.mirrored:
                columns = slice(self.shape[1] - columns.stop, self.shape[1] - columns.start)
            logits = sliding_window(
                self.model,
                self._images,
                how.crop,
                how.stride,
                how.align_corners,
                how.offload,
                batch=how.batch,
                region=(rows, columns),
            )
        return logits.flip(-1) if self.mirrored else logits


def _scaled_and_mirrored(
    model: Model, images: Tensor | Readable, size: Size, protocol: EvaluationProtocol, *, largest: float = float("inf")
) -> Iterator[_View]:
    """Every view of the protocol; those of windows are kept where together they have at most ``largest`` pixels.

    Raises:
        InputError: no images, or images or labels without pixels.
    """
    if 0 in (*images.shape, *size):
        raise InputError(f"There is nothing to see in images of shape {list(images.shape)} for a label of {list(size)}")
    height, width = fitted((images.shape[-2], images.shape[-1]), protocol)
    shapes = [(round(height * scale) or 1, round(width * scale) or 1) for scale in protocol.scales]
    flips = (False, True)[: 1 + protocol.flip]
    pixels = len(flips) * sum(height * width for height, width in shapes)
    for shape in shapes:
        for mirrored in flips:
            yield _View(model, images, shape, mirrored, size, protocol, protocol.mode == "whole" or pixels <= largest)


def _average(views: Iterator[Tensor], protocol: EvaluationProtocol) -> Tensor:
    """The logits of a single view, or the log of the mean probabilities of several."""
    count = len(protocol.scales) * (1 + protocol.flip)
    if count == 1:
        return next(views)
    mean = next(views).softmax(1)
    for logits in views:
        mean += logits.softmax(1)
    return mean.div_(count).clamp_(min=torch.finfo(mean.dtype).tiny).log_()


def _parts(length: int, part: int) -> list[slice]:
    """One side cut into parts, of which the last may be shorter."""
    return [slice(start, min(start + part, length)) for start in range(0, length, part)]


def _positions(part: slice, source: int, target: int, align_corners: bool) -> Tensor:
    """Where a bilinear resize of ``source`` to ``target`` pixels looks for those of ``part``."""
    pixels = torch.arange(part.start, part.stop, dtype=torch.float64)
    if align_corners:
        return pixels * ((source - 1) / max(target - 1, 1))
    return ((pixels + 0.5) * (source / target) - 0.5).clamp(0, source - 1)


def _around(positions: Tensor, length: int) -> slice:
    """The pixels between which positions lie."""
    return slice(int(positions[0]), min(int(positions[-1]) + 2, length))


def _sample(x: Tensor, dim: int, positions: Tensor) -> Tensor:
    """Linear interpolation along one dimension."""
    low = positions.floor().long()
    weight = (positions - low).to(x.device, x.dtype).view(-1, *(1,) * (-1 - dim))
    low = low.to(x.device)
    high = (low + 1).clamp(max=x.shape[dim] - 1)
    return torch.lerp(x.index_select(dim, low), x.index_select(dim, high), weight)
