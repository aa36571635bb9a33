"""Polarized self-attention as the formulas stand: every 1x1 convolution on the whole map."""

from torch import Tensor

from lightning_app.blocks import polarized


class PolarizedSelfAttention(polarized.PolarizedSelfAttention):
    def channel_gate(self, x: Tensor) -> Tensor:
        attention = self.channel_query(x).flatten(2).softmax(-1)
        context = self.channel_value(x).flatten(2) @ attention.transpose(1, 2)
        return self.channel_up(context.unsqueeze(-1)).sigmoid()

    def spatial_gate(self, x: Tensor) -> Tensor:
        query = self.spatial_query(x).mean((2, 3)).unsqueeze(1)
        value = self.spatial_value(x).flatten(2)
        if self.form == "paper":
            scores = query.softmax(-1) @ value
        elif self.mode == "sequential":
            scores = query @ value.softmax(-1)
        else:
            scores = (query @ value).softmax(-1)
        return scores.sigmoid().view(x.shape[0], 1, *x.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "parallel":
            return x * self.channel_gate(x) + x * self.spatial_gate(x)
        x = x * self.channel_gate(x)
        return x * self.spatial_gate(x)
