"""Object context as the formulas stand: the convolution after the attention on every position."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import ocrnet


class ObjectContext(ocrnet.ObjectContext):
    def forward(self, x: Tensor, regions: Tensor | None = None) -> Tensor:
        regions = self.regions(x) if regions is None else regions
        objects = regions.flatten(2).softmax(2) @ x.flatten(2).transpose(1, 2)
        objects = objects.transpose(1, 2).unsqueeze(3)
        pixels = F.max_pool2d(x, self.scale) if self.scale > 1 else x
        query = self.query(pixels).flatten(2).transpose(1, 2)
        key, value = self.key(objects).flatten(2), self.value(objects).flatten(2).transpose(1, 2)
        attention = (query @ key * key.shape[1] ** -0.5).softmax(2)
        y = self.out((attention @ value).transpose(1, 2).unflatten(2, pixels.shape[2:]))
        if self.scale > 1:
            y = F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=True)
        return self.fuse(torch.cat([y, x], dim=1))
