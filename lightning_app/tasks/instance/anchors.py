"""Anchors at the strides that the levels have, whatever the picture's size."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

SCALE = 8.0  # sides of an anchor, in strides of its level
RATIOS = (0.5, 1.0, 2.0)  # height / width


class Anchors(AnchorGenerator):
    """For cell (y, x) of a level of stride s: boxes around (x s, y s) of area (scale s)^2, one for each ratio of
    the sides.

    torchvision's, but for two things that published weights were trained with: base anchors are not rounded, and the
    stride is the level's own, where torchvision divides the picture's size by the map's.

    Args:
        strides: image pixels per pixel of each level.
        scale: sides of an anchor, in strides of its level.

    Reference: mmdetection 3.3 AnchorGenerator.
    """

    def __init__(self, strides: Sequence[int], scale: float = SCALE) -> None:
        super().__init__(tuple((scale * stride,) for stride in strides), (RATIOS,) * len(strides))
        self.strides = tuple(strides)

    def generate_anchors(
        self,
        scales: Sequence[int],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Boxes around 0, (scales x ratios, 4)."""
        heights = torch.tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        sides = torch.tensor(scales, dtype=dtype, device=device)
        width, height = (1 / heights[:, None] * sides).flatten() / 2, (heights[:, None] * sides).flatten() / 2
        return torch.stack([-width, -height, width, height], dim=1)

    def on(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """The anchors of each level, (h w 3, 4), in float32 at least.

        Shape: levels (B, C, h, w).
        """
        of_level = []
        for level, stride, cell in zip(levels, self.strides, self.cell_anchors, strict=True):
            dtype = torch.promote_types(level.dtype, torch.float32)
            y, x = (torch.arange(side, device=level.device, dtype=dtype) * stride for side in level.shape[-2:])
            shift = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).repeat(1, 1, 2)  # (h, w, 4)
            of_level.append((shift[:, :, None] + cell.to(shift)).reshape(-1, 4))
        return of_level
