"""RoIAlign by two small products for each box."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision import ops

from lightning_app.kernels.switch import is_fast, is_traced


def roi_align(x: Tensor, regions: Tensor, size: int, scale: float, samples: int = 0) -> Tensor:
    """torchvision's ``roi_align`` with ``aligned=True``, on a CPU several times as fast.

    A cell is the mean over a grid of bilinear samples. Both are products of a part along y and a part along x, so that
    the cells of a box are A_y x A_x^T, with matrices that are zero outside the box: (size, H) and (size, W).

    Shape: x (B, C, H, W), regions (N, 5) of image, left, top, right, bottom -> (N, C, size, size).

    Args:
        scale: pixels of x per pixel of the regions.
        samples: in a cell, along one side; 0 is as many as it has pixels.
    """
    if not is_fast() or is_traced() or x.device.type != "cpu":
        found: Tensor = ops.roi_align(x, regions.to(x.dtype), size, scale, samples, aligned=True)
        return found
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    with torch.autocast("cpu", enabled=False):  # which would round the weights of the samples
        cells: Tensor = _RoIAlign.apply(wide, regions.to(wide.dtype), size, scale, samples)
    return cells.to(x.dtype)


class _RoIAlign(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, regions: Tensor, size: int, scale: float, samples: int) -> Tensor:
        y = x.permute(0, 2, 3, 1).contiguous()
        cells = x.new_empty(len(regions), size, size, x.shape[1])
        for cell, (image, rows, columns, down, across) in zip(
            cells, _boxes(x, regions, size, scale, samples), strict=True
        ):
            seen = y[image, rows, columns]
            cell.copy_(across @ (down @ seen.flatten(1)).view(size, *seen.shape[1:]))
        return cells.permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, float, int], output: Tensor) -> None:
        x, regions, *ctx.how = inputs
        ctx.save_for_backward(regions)
        ctx.shape = x.shape

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (regions,) = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        to = grad.new_zeros(batch, height, width, channels)
        of_cells = grad.permute(0, 2, 3, 1).contiguous()
        like = to.permute(0, 3, 1, 2)
        for cell, (image, rows, columns, down, across) in zip(of_cells, _boxes(like, regions, *ctx.how), strict=True):
            seen = to[image, rows, columns]
            seen += (down.T @ (across.T @ cell).flatten(1)).view_as(seen)
        return like, None, None, None, None


def _boxes(
    x: Tensor, regions: Tensor, size: int, scale: float, samples: int
) -> list[tuple[int, slice, slice, Tensor, Tensor]]:
    """Of each box its image, the rows and columns that it reads, and their weights: A_y and A_x without the zeros."""
    left, top, right, bottom = (regions[:, 1:] * scale - 0.5).unbind(1)
    images = regions[:, 0].long().tolist()
    down, rows = _weights(top, bottom, size, x.shape[2], samples)
    across, columns = _weights(left, right, size, x.shape[3], samples)
    return [
        (image, row, column, a[:, row], b[:, column])
        for image, row, column, a, b in zip(images, rows, columns, down, across, strict=True)
    ]


def _weights(start: Tensor, end: Tensor, size: int, length: int, samples: int) -> tuple[Tensor, list[slice]]:
    """How much each pixel of one axis counts in each cell, (N, size, length), and which pixels count at all.

    A sample further than a pixel outside counts nothing; one less far is that of the border.
    """
    cell = (end - start) / size
    count = torch.full_like(cell, samples) if samples else cell.ceil().clamp(min=0)
    number = torch.arange(max(int(count.max()), 1) if len(count) else 1, dtype=cell.dtype)
    inside = (number + 0.5) / count.clamp(min=1)[:, None]
    place = start[:, None, None] + cell[:, None, None] * (
        torch.arange(size, dtype=cell.dtype)[:, None] + inside[:, None]
    )
    counts = (number < count[:, None])[:, None] & (place >= -1) & (place <= length)
    place = place.clamp(0, length - 1)
    low = place.floor()
    second = place - low
    share = counts / count.clamp(min=1)[:, None, None]
    weights = cell.new_zeros(len(cell), size, length)
    low = low.long()
    weights.scatter_add_(2, low, (1 - second) * share)
    weights.scatter_add_(2, (low + 1).clamp(max=length - 1), second * share)
    first = torch.minimum(start, end).floor().clamp(0, length - 1).long().tolist()
    last = (torch.maximum(start, end).floor() + 2).clamp(1, length).long().tolist()
    return weights, [slice(a, max(b, a + 1)) for a, b in zip(first, last, strict=True)]
