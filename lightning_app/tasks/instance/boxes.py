"""Boxes as differences from other boxes, and which object a box stands for."""

import math

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import batched_nms, nms

from lightning_app.kernels.switch import is_traced

LONGEST = math.log(1000 / 16)  # of a side's logarithm, either way


class TwoSidedCoder(BoxCoder):
    """torchvision's coder, whose decoder bounds how much a side shrinks as it bounds how much it grows.

    x = x_a + w_a dx / wx,  w = w_a exp(clamp(dw / ww, +-log(1000 / 16))), and so for y and h.

    Reference: mmdetection 3.3 DeltaXYWHBBoxCoder.
    """

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Shape: codes (N, 4 K), boxes (N, 4) -> (N, 4 K), in float32 at least."""
        codes = rel_codes.to(torch.promote_types(rel_codes.dtype, torch.float32))
        codes = codes.view(codes.shape[0], codes.shape[1] // 4, 4)
        boxes = boxes.to(codes.dtype)[:, None]
        weights = codes.new_tensor(self.weights)
        shift, log_sides = torch.split(codes / weights, 2, dim=-1)
        sides = boxes[..., 2:] - boxes[..., :2]
        centre = boxes[..., :2] + sides / 2 + shift * sides
        half = log_sides.clamp(-LONGEST, LONGEST).exp() * sides / 2
        return torch.cat([centre - half, centre + half], dim=-1).flatten(1)


class QualityMatcher(Matcher):
    """The object that each box stands for, -1 (none) or -2 (unclear).

    A box with an IoU of at least ``high`` stands for the object that it overlaps most, one below ``low`` for none.
    Moreover the boxes that overlap an object most stand for it, if by ``least`` or more.

    Args:
        high, low: the thresholds of the IoU.
        least: the IoU that an object's best boxes must have; None: no boxes beyond the threshold.

    Reference: mmdetection 3.3 MaxIoUAssigner.
    """

    def __init__(self, high: float, low: float, least: float | None) -> None:
        super().__init__(high, low, allow_low_quality_matches=least is not None)
        self.least = least

    def __call__(self, match_quality_matrix: Tensor) -> Tensor:
        """Shape: IoU (objects, boxes) -> (boxes,)."""
        objects, boxes = match_quality_matrix.shape
        if objects == 0 or boxes == 0:
            return match_quality_matrix.new_full((boxes,), self.BELOW_LOW_THRESHOLD, dtype=torch.int64)
        matches: Tensor = super().__call__(match_quality_matrix)
        return matches

    def set_low_quality_matches_(self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor) -> None:
        """Give each object its best boxes; where two objects want one, the later has it."""
        best = match_quality_matrix.amax(dim=1, keepdim=True)
        wanted = (match_quality_matrix == best) & (best >= (self.least or 0))
        order = torch.arange(1, len(wanted) + 1, device=wanted.device)[:, None]
        last = (wanted * order).amax(dim=0)
        matches[last > 0] = last[last > 0] - 1


def thinned(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float) -> Tensor:
    """Which boxes are left where of those of one class that overlap by more the best remain, the best first.

    Shape: boxes (N, 4) from 0, scores (N,), labels (N,) -> (n,) int64.
    """
    kept: Tensor
    if is_traced():  # torchvision's way for up to 1000 boxes, each class in a place of its own; there may be no box
        side = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max() + 1
        kept = nms(boxes + (labels.to(boxes.dtype) * side)[:, None], scores, overlap)
    else:
        kept = batched_nms(boxes, scores, labels, overlap)
    return kept
