"""Dynamic message passing as the formulas stand: every neighbourhood unfolded, torchvision's deformable kernel."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from lightning_app.blocks import dgmn


class DynamicMessagePassing(dgmn.DynamicMessagePassing):
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        out = x
        for m in self.messages:
            if m.deform == "none":
                samples = F.unfold(x, 3, padding=m.dilation, dilation=m.dilation)
                filters = m.filter(x)
            else:
                offset, step = m.offset(x), {"padding": m.dilation, "dilation": m.dilation}
                pick = torch.eye(9, dtype=x.dtype, device=x.device).view(9, 1, 3, 3).repeat(channels, 1, 1, 1)
                samples = deform_conv2d(x, offset, pick, **step)
                filters = deform_conv2d(x, offset, m.filter.weight, **step)
            samples = samples.view(batch, m.groups, -1, 9, height, width)
            weights = filters[:, : 9 * m.groups].reshape(batch, m.groups, 9, height, width)
            if m.deform == "deformatt":
                attention = weights[:, -1] if m.att_of_filter else filters[:, 9 * m.groups :]
                weights = weights * attention.softmax(1).unsqueeze(1)
            else:
                weights = weights.softmax(2)
            out = out + m.gamma * (weights.unsqueeze(2) * samples).sum(3).view_as(x)
        return out
