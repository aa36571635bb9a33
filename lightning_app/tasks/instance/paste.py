"""Masks of boxes, pasted into the picture."""

import math

import torch
from torch import Tensor


def paste(probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Where in the picture each mask is at least ``threshold``, sampled bilinearly at the centres of pixels.

    A mask's cells lie evenly in its box; outside it is 0, which the outer half of the border cells runs down to.

    Shape: probabilities (N, M, M) and boxes (N, 4) in pixels -> (N, *size) bool.

    Reference: mmdetection 3.3 _do_paste_mask.
    """
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool, device=boxes.device)
    boxes = boxes.float()
    for mask, box, (left, top, right, bottom) in zip(masks, probabilities.float(), boxes.tolist(), strict=True):
        rows, columns = _pixels(top, bottom, size[0]), _pixels(left, right, size[1])
        if right > left and bottom > top and rows.start < rows.stop and columns.start < columns.stop:
            y = _weights(rows, top, bottom, box)
            x = _weights(columns, left, right, box)
            with torch.autocast(boxes.device.type, enabled=False):
                mask[rows, columns] = y @ box @ x.T >= threshold
    return masks


def _pixels(start: float, end: float, size: int) -> slice:
    """The pixels that may lie in an interval, the next on either side included."""
    return slice(min(max(math.floor(start) - 1, 0), size), min(max(math.ceil(end) + 1, 0), size))


def _weights(pixels: slice, start: float, end: float, mask: Tensor) -> Tensor:
    """How much each cell counts at the centre of each pixel, (pixels, M)."""
    count = mask.shape[0]
    centres = torch.arange(pixels.start, pixels.stop, device=mask.device, dtype=mask.dtype) + 0.5
    place = ((centres - start) / (end - start) * 2 - 1 + 1) * (count / 2) - 0.5
    return (1 - (place[:, None] - torch.arange(count, device=mask.device)).abs()).clamp(min=0)
