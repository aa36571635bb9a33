"""The local relation layer as the formulas stand: the windows of keys and values unfolded."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import local_relation


class LocalRelationLayer(local_relation.LocalRelationLayer):
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        position = self.prior(self.taps)
        groups, kernel = position.shape[1:3]
        window = {"kernel_size": kernel, "dilation": self.dilation, "padding": kernel // 2 * self.dilation}
        key = F.unfold(self.key(x), **window).view(batch, groups, -1, height, width)
        query = key if self.query is None else self.query(x).unsqueeze(2)
        inside = F.unfold(torch.ones_like(x[:1, :1]), **window).view(-1, height, width) > 0
        logits = local_relation.compare(query.expand_as(key), key, self.similarity).masked_fill(~inside, -100.0)
        weights = (logits + position.view(groups, -1, 1, 1)).softmax(2)
        value = F.unfold(x, **window).view(batch, groups, channels // groups, -1, height, width)
        return self.out((weights.unsqueeze(2) * value).sum(3).view_as(x))
