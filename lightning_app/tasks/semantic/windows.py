"""Windows over an image, and the mean of their logits where they overlap."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.tasks.semantic.protocol import EvaluationProtocol, Size

Model = Callable[[Tensor], Tensor]

Slices = tuple[slice, slice]  # rows, columns


class Readable(Protocol):
    """What is asked of images (B, C, H, W) that are seen by windows alone: a tensor, or a file's windows as tensors."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, place: Any, /) -> Tensor: ...


def sliding_window(
    model: Model,
    images: Tensor | Readable,
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
            total = _zeros(seen, count)
        (from_rows, to_rows), (from_columns, to_columns) = map(_shared, window, (rows, columns))
        total[..., to_rows, to_columns] += seen[..., from_rows, from_columns]
        count[to_rows, to_columns] += 1
    return total.div_(count.to(total.device))


def _window_logits(
    model: Model,
    images: Tensor | Readable,
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
        logits = resized(summable(model(views), offload), (views.shape[-2], views.shape[-1]), align_corners)
        yield from zip(together, logits.view(-1, len(images), *logits.shape[1:]), strict=True)


def strips(
    model: Model, images: Tensor | Readable, columns: slice, how: EvaluationProtocol
) -> Iterator[tuple[slice, Tensor]]:
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
            total = _zeros(seen, count)
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


def _zeros(like: Tensor, sized: Tensor) -> Tensor:
    """(B, K, h, w) for sums of logits like these, which lie in memory as they do, of the size of (h, w)."""
    last = like.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return like.new_empty(*like.shape[:2], *sized.shape).contiguous(memory_format=layout).zero_()


def _starts(side: int, crop: int, stride: int) -> list[int]:
    """Where windows begin along one side."""
    last = max(side - crop, 0)
    return [min(i * stride, last) for i in range(-(-last // stride) + 1)]


def _shared(one: slice, other: slice) -> tuple[slice, slice]:
    """What two stretches share, counted from the start of the one and from that of the other."""
    start, stop = max(one.start, other.start), min(one.stop, other.stop)
    return slice(start - one.start, stop - one.start), slice(start - other.start, stop - other.start)


def summable(logits: Tensor, offload: bool) -> Tensor:
    """Logits where, and in the precision in which, they are summed."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits.cpu() if offload else logits


def resized(x: Tensor, size: Size, align_corners: bool = False, antialias: bool = False) -> Tensor:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners, antialias=antialias)
