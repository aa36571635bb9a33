"""Efficient attention as the formulas stand: values, heads and their concatenation for every position."""

import torch
from torch import Tensor

from lightning_app.blocks import efficient_attention


class EfficientSelfAttention(efficient_attention.EfficientSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        keys, queries, values = (
            conv(x).flatten(2).chunk(self.heads, dim=1) for conv in (self.key, self.query, self.value)
        )
        heads = [
            (key.softmax(2) @ value.transpose(1, 2)).transpose(1, 2) @ query.softmax(1)
            for key, query, value in zip(keys, queries, values, strict=True)
        ]
        return x + self.reproject(torch.cat(heads, dim=1).unflatten(2, x.shape[2:]))
