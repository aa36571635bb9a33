"""Point-wise spatial attention with one copy of the mask per position."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import psanet
from lightning_app.blocks._layers import resize


class PointwiseSpatialAttention(psanet.PointwiseSpatialAttention):
    def forward(self, x: Tensor) -> Tensor:
        size, align_corners = self._shrunken(x)
        y = []
        for direction, reduce, attention in zip(self.directions, self.reduce, self.attention, strict=True):
            f = resize(reduce(x), size, align_corners)
            mask = attention(f)
            source = mask.flatten(2) if self.compact else self.spread(mask, *size)
            if direction == "distribute":
                source = source.mT
            if self.softmax:
                source = source.softmax(1)
            y.append((f.flatten(2) @ source / self.factor).reshape(f.shape))
        out = self.proj(F.pad(torch.cat(y, dim=1), (self.padding,) * 4))
        return resize(out, x.shape[-2:], align_corners)

    def spread(self, mask: Tensor, height: int, width: int) -> Tensor:
        """(B, other, own): what each position predicts for each other one, 0 outside its mask."""
        (rows, columns), batch = self.mask_size, mask.shape[0]
        mask = mask.reshape(batch, rows, columns, height, width)
        half_rows, half_columns = (rows - 1) // 2, (columns - 1) // 2
        out = mask.new_zeros(batch, height, width, height, width)
        for i in range(height):
            top, bottom = max(0, i - half_rows), min(height, i - half_rows + rows)
            for j in range(width):
                left, right = max(0, j - half_columns), min(width, j - half_columns + columns)
                seen = mask[
                    :,
                    top - i + half_rows : bottom - i + half_rows,
                    left - j + half_columns : right - j + half_columns,
                    i,
                    j,
                ]
                out[:, top:bottom, left:right, i, j] = seen
        return out.reshape(batch, height * width, height * width)
