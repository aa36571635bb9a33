"""The few layers that every paper shares."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvBNReLU(nn.Module):
    """Convolution with "same" zero padding, batch norm, ReLU: the field's unit.

    Args:
        bias: give the convolution a bias too (redundant in front of a batch norm, but some papers' weights hold one).
        slope: negative slope of the activation; 0 is ReLU, 0.01 the leaky one of InPlaceABN, ``None`` no activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        slope: float | None = 0.0,
    ) -> None:
        super().__init__()
        self.slope = slope
        padding = kernel_size // 2 * dilation
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, 1, padding, dilation, groups, bias)
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        if self.slope is None:
            return x
        return F.relu(x) if self.slope == 0 else F.leaky_relu(x, self.slope)


def resize(x: Tensor, size: tuple[int, ...], align_corners: bool = False) -> Tensor:
    """Bilinear resize to ``size`` = (H, W); the same tensor where it already has that size."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


def adaptive_avg_pool(x: Tensor, size: int) -> Tensor:
    """Mean over ``size`` x ``size`` cells: (B, C, H, W) -> (B, C, size, size), as torch's adaptive pooling.

    Cell i covers rows floor(iH/size) <= j < ceil((i+1)H/size); columns alike. Written as two products with 0/1 matrices
    made from H and W: an exported graph keeps H and W free, where torch's own operator freezes them for size > 1.
    """
    if size == 1:
        return F.adaptive_avg_pool2d(x, 1)
    rows, columns = _cells(x, x.shape[-2], size), _cells(x, x.shape[-1], size)
    x = (x @ columns.T) / columns.sum(1)
    return (rows @ x) / rows.sum(1, keepdim=True)


def _cells(like: Tensor, length: int, count: int) -> Tensor:
    """Membership (count, length) of positions in cells, in the dtype and on the device of ``like``."""
    cell = torch.arange(count, device=like.device)[:, None]
    position = torch.arange(length, device=like.device)
    inside = (position >= cell * length // count) & (position < ((cell + 1) * length + count - 1) // count)
    return inside.to(like.dtype)
