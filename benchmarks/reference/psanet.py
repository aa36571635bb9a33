"""Point-wise spatial attention as the reference writes it, the whole mask predicted."""

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
        (rows, columns), n = self.mask_size, height * width
        own = torch.cartesian_prod(torch.arange(height), torch.arange(width)).to(mask.device)
        offset = own[:, None] - own + torch.tensor([(rows - 1) // 2, (columns - 1) // 2], device=mask.device)
        inside = ((offset >= 0) & (offset < torch.tensor([rows, columns], device=mask.device))).all(-1)
        index = (offset[..., 0] * columns + offset[..., 1]).where(inside, 0)
        return mask.flatten(2).gather(1, index.expand(mask.shape[0], n, n)) * inside
