"""PointRend: a small network at chosen points, where a coarse segmentation is least sure. arXiv:1912.08193."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sample(x: Tensor, points: Tensor, align_corners: bool = False) -> Tensor:
    """Values of a map at points (x, y) in 0..1, zeros outside: (B, C, H, W), (B, P, 2) -> (B, C, P)."""
    return F.grid_sample(x, 2 * points.unsqueeze(2) - 1, align_corners=align_corners).squeeze(-1)


class PointRend(nn.Module):
    """Logits at points from fine features and coarse logits there, the latter given to every layer.

    y_0 = [f, l]; y_i = [ReLU(W_i y_i-1 + b_i), l]; logits = W y_n + b, f and l sampled at the points.

    Shape: features (B, C, H, W), logits (B, num_classes, h, w), points (B, P, 2) -> (B, num_classes, P).

    Args:
        channels: width of each layer.
        layers: how many.

    Reference: OpenMMLab's PointHead.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        channels: int = 256,
        layers: int = 3,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        widths = [in_channels] + [channels] * (layers - 1)
        self.layers = nn.ModuleList(nn.Conv1d(width + num_classes, channels, 1) for width in widths)
        self.classifier = nn.Conv1d(channels + num_classes, num_classes, 1)

    def forward(self, features: Tensor, logits: Tensor, points: Tensor) -> Tensor:
        coarse = sample(logits, points, self.align_corners)
        x = torch.cat([sample(features, points, self.align_corners), coarse], dim=1)
        for layer in self.layers:
            x = torch.cat([layer(x).relu(), coarse], dim=1)
        y: Tensor = self.classifier(x)
        return y

    def subdivide(self, features: Tensor, logits: Tensor, steps: int, points: int, scale: int = 2) -> Tensor:
        """The logits enlarged ``steps`` times, each time computed anew at the points that are least sure.

        Least sure: where the best class is the smallest step above the second best.
        """
        made = logits
        for _ in range(steps):
            made = F.interpolate(made, scale_factor=scale, mode="bilinear", align_corners=self.align_corners)
            height, width = made.shape[-2:]
            best, second = made.topk(2, dim=1).values.unbind(1)
            places = (second - best).flatten(1).topk(min(points, height * width), dim=1).indices
            rows = places // width
            columns = places - rows * width  # ONNX knows no remainder by a side that is free
            x, y = columns.to(features.dtype) + 0.5, rows.to(features.dtype) + 0.5
            at = torch.stack([x / width, y / height], dim=-1)
            own = self(features, logits, at)
            flat = made.flatten(2).scatter(2, places.unsqueeze(1).expand_as(own), own.to(made.dtype))
            made = flat.view_as(made)
        return made
