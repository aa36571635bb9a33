"""Local relation: aggregation by how well a pixel and its neighbour compose, in place of a fixed filter."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1
from lightning_app.kernels.windows import taps, window_sum
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError

Similarity = Literal["product", "key", "abs", "relative_abs", "relative_square", "square"]
SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)  # in the numbering of the official operator


def compare(query: Tensor, key: Tensor, similarity: Similarity) -> Tensor:
    """Elementwise appearance composability of a query and a key."""
    if similarity == "product":
        return query * key
    if similarity == "key":
        return key.expand_as(query)
    difference = query - key
    if similarity == "abs":
        return -difference.abs()
    if similarity == "relative_abs":
        return -difference.abs() / (query.abs() + key.abs() + 1)
    if similarity == "relative_square":
        return -difference.square() / ((query * key).abs() + 1)
    return -difference.square()


def local_relation(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    position: Tensor,
    *,
    stride: int = 1,
    dilation: int = 1,
    scale: float = 1.0,
    outside: float = -100.0,
    similarity: Similarity = "product",
) -> Tensor:
    """Softmax over a window of appearance plus geometry, then the weighted sum of the values.

    out_i = sum_t softmax_t(scale sum_c sim(q_ic, k_{i+t,c}) + position_t) v_{i+t} per group of channels; a tap
    outside the image compares as ``outside`` and adds nothing.

    Shape: query (B, Q, H', W') with H' = ceil(H / stride), key (B, Q, H, W), value (B, V, H, W), position (groups, k,
    k) -> (B, V, H', W').

    Paper: https://arxiv.org/abs/1904.11491. Consulted: github.com/microsoft/Swin-Transformer, branch LR-Net.
    """
    groups, size, _ = position.shape
    batch, _, height, width = query.shape
    window = {"stride": stride, "dilation": dilation}

    def grouped(x: Tensor) -> Tensor:
        return x.reshape(batch, groups, -1, *x.shape[2:])

    query = grouped(query)
    seen = taps(grouped(key), size, **window)
    logits = torch.stack([compare(query, k, similarity).sum(2) * scale for k in seen], dim=2)
    beyond = torch.stack(taps(torch.ones_like(key[0, 0], dtype=torch.bool), size, **window)).logical_not()
    weights = logits.masked_fill_(beyond, outside).add_(position.view(groups, -1, 1, 1)).softmax(2)
    y = window_sum(grouped(value).flatten(0, 1), weights.flatten(0, 1).unsqueeze(2), **window)
    return y.view(batch, -1, height, width)


@BLOCKS.register("local_relation", paper="arXiv:1904.11491", year=2019)
class LocalRelationLayer(nn.Module):
    """Local relation layer: ``local_relation`` with scalar queries and keys per group, then a 1x1 convolution.

    q, k = conv x to one channel per group; v = x; position = MLP(t), a small network of the tap's relative position
    2 -> hidden -> groups with ReLU between, the taps' coordinates scaled to [-1, 1] (the paper fixes neither
    ``hidden`` nor the scale); out = conv(local_relation(q, k, v, position)). Weights keep PyTorch's own
    initialisation.

    Shape: (B, channels, H, W) -> the same. Time O(N kernel^2 channels).

    Args:
        kernel: side of the window.
        group_channels: how many channels share their weights.
        hidden: inner width of the geometry prior's network.
        similarity: "product", "key", "abs", "relative_abs", "relative_square" or "square".
        dilation: step between two taps.

    Raises:
        InputError: if ``group_channels`` does not divide the channels or the similarity is unknown.

    Paper: https://arxiv.org/abs/1904.11491.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel: int = 7,
        group_channels: int = 8,
        hidden: int = 16,
        similarity: Similarity = "product",
        dilation: int = 1,
    ) -> None:
        super().__init__()
        if channels % group_channels:
            raise InputError(f"group_channels={group_channels} must divide channels={channels}.")
        if similarity not in SIMILARITIES:
            raise InputError(f'Unknown similarity "{similarity}": one of {", ".join(SIMILARITIES)}.')
        groups = channels // group_channels
        self.similarity, self.dilation = similarity, dilation
        self.query = None if similarity == "key" else Conv1x1(channels, groups)
        self.key = Conv1x1(channels, groups)
        self.prior = nn.Sequential(Conv1x1(2, hidden), nn.ReLU(inplace=True), Conv1x1(hidden, groups))
        self.out = Conv1x1(channels, channels)
        axis = torch.linspace(-1, 1, kernel)
        taps = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))
        self.register_buffer("taps", taps.unsqueeze(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        key = self.key(x)
        query = key if self.query is None else self.query(x)
        position = self.prior(self.taps).squeeze(0)
        y = local_relation(query, key, x, position, dilation=self.dilation, similarity=self.similarity)
        out: Tensor = self.out(y)
        return out
