"""Maps cut into cells, and work cut into pieces that a cache holds."""

from collections.abc import Iterator

from torch import Tensor


def pieces(outer: int, inner: int, fit: int) -> Iterator[tuple[slice, slice]]:
    """Cut a grid of outer x inner things where ``fit`` may be held at a time: several rows of it, or parts of one."""
    if fit >= inner:
        step = fit // inner
        for i in range(0, outer, step):
            yield slice(i, i + step), slice(None)
    else:
        for i in range(outer):
            for j in range(0, inner, fit):
                yield slice(i, i + 1), slice(j, j + fit)


def to_cells(x: Tensor, cell: tuple[int, int], *, across: bool = False) -> Tensor:
    """Cut a map whose sides ``cell`` = (h, w) divides into many small ones, channels last.

    Shape: (B, C, H, W) -> (B H/h W/w, C, h, w), one map per cell; ``across`` cells (B h w, C, H/h, W/w), one map per
    place in a cell.
    """
    (h, w), (batch, channels, height, width) = cell, x.shape
    x = x.permute(0, 2, 3, 1).reshape(batch, height // h, h, width // w, w, channels)
    x = x.permute(0, 2, 4, 1, 3, 5) if across else x.permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, *x.shape[3:]).permute(0, 3, 1, 2)


def from_cells(x: Tensor, size: tuple[int, int], cell: tuple[int, int], *, across: bool = False) -> Tensor:
    """Undo ``to_cells``: back to (B, C, *size), channels last."""
    (h, w), (height, width) = cell, size
    rows, columns = height // h, width // w
    x = x.permute(0, 2, 3, 1)
    if across:
        x = x.reshape(-1, h, w, rows, columns, x.shape[3]).permute(0, 3, 1, 4, 2, 5)
    else:
        x = x.reshape(-1, rows, columns, h, w, x.shape[3]).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, height, width, x.shape[5]).permute(0, 3, 1, 2)
