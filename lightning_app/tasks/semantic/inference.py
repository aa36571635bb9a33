"""From images to logits at the label's size: whole or by sliding window, mirrored and at several scales.

Pure functions of a ``model`` that maps images (B, C, H, W) to logits (B, K, h, w).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.util.errors import InputError

Model = Callable[[Tensor], Tensor]
Size = tuple[int, int]  # height, width
Slices = tuple[slice, slice]  # rows, columns


@dataclass(frozen=True)
class EvaluationProtocol:
    """How predictions are made.

    Args:
        mode: the whole image at once, or windows over it whose logits are averaged where they overlap.
        crop: height and width of a window.
        stride: step between windows, down and across; two thirds of the crop by default.
        scales: factors by which the image is resized, one view each.
        flip: add the mirrored image to each view.
        align_corners: convention of the resize from logits to the label's size.
        fit: longer and shorter side of a box; images are first resized to fill it, their ratio kept.
        antialias: smooth images where a resize shrinks them.
        batch: windows that go through the model together.
        offload: keep sums in host memory, for images whose logits do not fit on the device.

    Raises:
        InputError: windows without a crop or with gaps between them, scales or sides that are not positive.
    """

    mode: Literal["whole", "slide"] = "whole"
    crop: Size | None = None
    stride: Size | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    align_corners: bool = False
    fit: tuple[int, int] | None = None
    antialias: bool = False
    batch: int = 1
    offload: bool = False

    def __post_init__(self) -> None:
        if self.mode == "slide":
            if self.crop is None or min(self.crop) <= 0:
                raise InputError(f"Sliding windows need a crop such as [512, 512], it is {self.crop}")
            if self.stride and not all(0 < step <= side for step, side in zip(self.stride, self.crop, strict=True)):
                raise InputError(
                    f"Stride {self.stride} must lie between 1 and the crop {self.crop}, or windows leave gaps"
                )
        if self.fit and not self.fit[0] >= self.fit[1] > 0:
            raise InputError(f"Images cannot fit {self.fit}: give the longer and the shorter side, such as [2048, 512]")
        if not self.scales or min(self.scales) <= 0:
            raise InputError(f"Scales {list(self.scales)} must be one or more positive factors, such as [1.0]")


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
    model: Model, images: Tensor, size: Size, protocol: EvaluationProtocol, tile: Size
) -> Iterator[tuple[Slices, Tensor]]:
    """Class numbers of the same prediction, where the logits of a whole label would not fit into memory.

    Logits are held for a tile at a time. Windows that reach into several tiles are looked at again for each of them,
    which costs least where tiles are multiples of the stride; views that are no larger than a tile are kept. A single
    view of the label's size goes down with its windows, in tiles of no more rows than theirs, so that none is looked at
    again for the tile below.

    Shape: images (B, C, H, W) -> of each tile, its place in the label and its (B, h, w).
    """
    views = list(_scaled_and_mirrored(model, images, size, protocol, largest=tile[0] * tile[1]))
    if len(views) == 1 and views[0].shape == size and not views[0].kept:
        for columns in _parts(size[1], tile[1]):
            for rows, classes in _strips(model, images, columns, protocol):
                yield (rows, columns), classes
        return
    for rows in _parts(size[0], tile[0]):
        for columns in _parts(size[1], tile[1]):
            yield (rows, columns), _average((view.logits((rows, columns)) for view in views), protocol).argmax(1)


def fitted(size: Size, protocol: EvaluationProtocol) -> Size:
    """Size of an image once it fills the protocol's box."""
    if protocol.fit is None:
        return size
    ratio = min(protocol.fit[0] / max(size), protocol.fit[1] / min(size))
    return int(size[0] * ratio + 0.5) or 1, int(size[1] * ratio + 0.5) or 1


def sliding_window(
    model: Model,
    images: Tensor,
    crop: Size,
    stride: Size | None = None,
    align_corners: bool = False,
    offload: bool = False,
    *,
    batch: int = 1,
    region: Slices | None = None,
) -> Tensor:
    """Logits at the image's size: the mean over the windows that hold a pixel.

    Windows stand at multiples of the stride; the last of a row or column is moved back to end at the image's border. An
    image smaller than the crop is one smaller window.

    Args:
        batch: windows that go through the model together.
        region: the part of the image whose logits are asked for; None = all of it.

    Shape: images (B, C, H, W) -> (B, K, H, W), or (B, K, h, w) of the region.
    """
    height, width = images.shape[-2:]
    rows, columns = region or (slice(0, height), slice(0, width))
    total, count = torch.zeros(()), torch.zeros(rows.stop - rows.start, columns.stop - columns.start)
    for window, seen in _window_logits(model, images, crop, stride, align_corners, offload, batch, (rows, columns)):
        if not total.ndim:
            total = seen.new_zeros(*seen.shape[:2], *count.shape)
        (from_rows, to_rows), (from_columns, to_columns) = map(_shared, window, (rows, columns))
        total[..., to_rows, to_columns] += seen[..., from_rows, from_columns]
        count[to_rows, to_columns] += 1
    return total.div_(count.to(total.device))


def _window_logits(
    model: Model,
    images: Tensor,
    crop: Size,
    stride: Size | None,
    align_corners: bool,
    offload: bool,
    batch: int,
    region: Slices,
) -> Iterator[tuple[Slices, Tensor]]:
    """Every window that reaches into the region, row by row, and its logits (B, K, h, w)."""
    (height, width), (rows, columns) = images.shape[-2:], region
    down, across = stride or (round(crop[0] * 2 / 3) or 1, round(crop[1] * 2 / 3) or 1)
    windows = [
        (slice(top, min(top + crop[0], height)), slice(left, min(left + crop[1], width)))
        for top in _starts(height, crop[0], down)
        if rows.start - crop[0] < top < rows.stop
        for left in _starts(width, crop[1], across)
        if columns.start - crop[1] < left < columns.stop
    ]
    for first in range(0, len(windows), batch):
        together = windows[first : first + batch]
        views = torch.cat([images[(..., *window)] for window in together])
        logits = _resize(_summable(model(views), offload), (views.shape[-2], views.shape[-1]), align_corners)
        yield from zip(together, logits.view(-1, len(images), *logits.shape[1:]), strict=True)


def _strips(model: Model, images: Tensor, columns: slice, how: EvaluationProtocol) -> Iterator[tuple[slice, Tensor]]:
    """Class numbers (B, h, w) by the mean over the windows, each time of the rows that no later window reaches."""
    assert how.crop is not None
    height = images.shape[-2]
    region = (slice(0, height), columns)
    top, total, count = 0, torch.zeros(()), torch.zeros(min(how.crop[0], height), columns.stop - columns.start)

    def classes(rows: int) -> Tensor:
        return total[..., :rows, :].div_(count[:rows].to(total.device)).argmax(1)

    looks = _window_logits(model, images, how.crop, how.stride, how.align_corners, how.offload, how.batch, region)
    for (rows, window_columns), seen in looks:
        if not total.ndim:
            total = seen.new_zeros(*seen.shape[:2], *count.shape)
        if done := rows.start - top:  # no later window reaches above this one
            yield slice(top, rows.start), classes(done)
            for sums in (total, count):
                sums[..., :-done, :] = sums[..., done:, :].clone()
                sums[..., -done:, :] = 0
            top = rows.start
        from_columns, to_columns = _shared(window_columns, columns)
        total[..., to_columns] += seen[..., from_columns]
        count[..., to_columns] += 1
    yield slice(top, height), classes(height - top)


@dataclass
class _View:
    """Images at one scale, mirrored or not, and their logits on any region of the label."""

    model: Model
    original: Tensor
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
            return _resize(logits, self.size, align_corners)
        return _sample(_sample(logits, -2, at_rows - rows.start), -1, at_columns - columns.start)

    @cached_property
    def _images(self) -> Tensor:
        images = _resize(self.original, self.shape, antialias=self.protocol.antialias)
        return images.flip(-1) if self.mirrored else images

    @cached_property
    def _whole(self) -> Tensor:
        return self._view_logits((slice(0, self.shape[0]), slice(0, self.shape[1])))

    def _view_logits(self, region: Slices) -> Tensor:
        """Logits of a region of the view; of a whole view, at the model's resolution."""
        how = self.protocol
        if how.mode == "whole":
            logits = _summable(self.model(self._images), how.offload)
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
    model: Model, images: Tensor, size: Size, protocol: EvaluationProtocol, *, largest: float = float("inf")
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


def _starts(side: int, crop: int, stride: int) -> list[int]:
    """Where windows begin along one side."""
    last = max(side - crop, 0)
    return [min(i * stride, last) for i in range(-(-last // stride) + 1)]


def _shared(one: slice, other: slice) -> tuple[slice, slice]:
    """What two stretches share, counted from the start of the one and from that of the other."""
    start, stop = max(one.start, other.start), min(one.stop, other.stop)
    return slice(start - one.start, stop - one.start), slice(start - other.start, stop - other.start)


def _parts(length: int, part: int) -> list[slice]:
    """One side cut into parts, of which the last may be shorter."""
    return [slice(start, min(start + part, length)) for start in range(0, length, part)]


def _summable(logits: Tensor, offload: bool) -> Tensor:
    """Logits where, and in the precision in which, they are summed."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits.cpu() if offload else logits


def _resize(x: Tensor, size: Size, align_corners: bool = False, antialias: bool = False) -> Tensor:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners, antialias=antialias)


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
