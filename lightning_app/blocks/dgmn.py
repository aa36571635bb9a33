"""Dynamic graph message passing: every position samples its own neighbours and weighs them by filters of its own."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.kernels.products import matmul
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError

TAPS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


def sample(x: Tensor, offset: Tensor, dilation: int) -> Tensor:
    """What a deformable 3x3 convolution reads: x at each position + dilation * tap + offset, bilinear, 0 outside.

    Shape: x (B, C, H, W), offset (B, 18, H, W) as (dy, dx) per tap, in pixels -> (B, C, 9, H, W).
    """
    batch, channels, height, width = x.shape
    dy, dx = offset.view(batch, 9, 2, height, width).unbind(2)
    taps = dilation * torch.tensor(TAPS, device=x.device, dtype=torch.float32)
    y = torch.arange(height, device=x.device).view(-1, 1) + taps[:, 0].view(-1, 1, 1) + dy
    x_ = torch.arange(width, device=x.device) + taps[:, 1].view(-1, 1, 1) + dx
    grid = torch.stack([(2 * x_ + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1).to(x.dtype)
    samples = F.grid_sample(x, grid.view(batch, 9 * height, width, 2), align_corners=False)
    return samples.view(batch, channels, 9, height, width)


class Messages(nn.Module):
    """The messages of one dilation: sum over 9 samples of weight * sample, one set of weights per group of channels."""

    def __init__(self, channels: int, groups: int, dilation: int, deform: str, shuffle: bool, att_of_filter: bool):
        super().__init__()
        self.groups, self.dilation, self.deform = groups, dilation, deform
        self.shuffle, self.att_of_filter = shuffle, att_of_filter
        if deform != "none":
            self.offset = nn.Conv2d(channels, 18, 3, padding=dilation, dilation=dilation, bias=False)
        out_channels = 9 * groups + (9 if deform == "deformatt" else 0)
        self.filter = nn.Conv2d(channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        if self.deform == "none":
            padded = F.pad(x, [self.dilation] * 4)
            samples = [
                padded[:, :, (1 + dy) * self.dilation :, (1 + dx) * self.dilation :][:, :, :height, :width]
                for dy, dx in TAPS
            ]
            filters = self.filter(x)
        else:
            columns = sample(x, self.offset(x), self.dilation)
            samples = list(columns.unbind(2))
            filters = matmul(self.filter.weight.flatten(1), columns.flatten(1, 2).flatten(2))
        weights = filters[:, : 9 * self.groups].reshape(batch, self.groups, 9, height, width)
        if self.deform == "deformatt":
            attention = weights[:, -1] if self.att_of_filter else filters[:, 9 * self.groups :].view_as(weights[:, 0])
            weights = weights * attention.softmax(1).unsqueeze(1)
        else:
            weights = weights.softmax(2)
        if self.shuffle and self.training:
            weights = weights[:, torch.randperm(self.groups, device=x.device)]
        message = torch.zeros_like(x).reshape(batch, self.groups, -1, height, width)
        for tap, values in enumerate(samples):
            message = message + weights[:, :, tap].unsqueeze(2) * values.view(batch, self.groups, -1, height, width)
        return self.gamma * message.reshape(x.shape)


@BLOCKS.register("dgmn", paper="arXiv:1908.06955", year=2020)
class DynamicMessagePassing(nn.Module):
    """Dynamic graph message passing network's block.

    For each dilation: offsets o = conv(x); 9 samples s_k = x(i + tap_k + o_k); filters w (one per group of channels)
    and attention a are read from the samples by a 3x3 convolution; message = sum_k w_k softmax(a)_k s_k. out = x +
    sum_dilations gamma message, every gamma starts at one; convolutions keep PyTorch's own initialisation.

    The samples are read once, for filters and messages alike.

    Shape: (B, channels, H, W) -> the same.

    Args:
        groups: groups of channels that share a filter.
        dilations: one neighbourhood of 3x3 positions each.
        deform: "deformatt" as above (the released configuration); "deform" without attention, softmax(w) instead;
            "none" also without offsets.
        shuffle: in training, hand the filters to the groups in random order.
        released: as the released code has it, let the last dilation read its attention from the last 9 filter channels.

    Raises:
        InputError: if the groups do not divide the channels.

    Paper: https://arxiv.org/abs/1908.06955. Consulted: github.com/lzrobots/dgmn.
    """

    def __init__(
        self,
        channels: int,
        *,
        groups: int = 4,
        dilations: Sequence[int] = (1, 4, 8, 12),
        deform: Literal["deformatt", "deform", "none"] = "deformatt",
        shuffle: bool = False,
        released: bool = False,
    ) -> None:
        super().__init__()
        if channels % groups:
            raise InputError(f"groups={groups} must divide channels={channels}.")
        last = len(dilations) - 1
        self.messages = nn.ModuleList(
            Messages(channels, groups, dilation, deform, shuffle, released and i == last)
            for i, dilation in enumerate(dilations)
        )

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for messages in self.messages:
            out = out + messages(x)
        return out
