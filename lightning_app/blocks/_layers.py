"""The few layers that every paper shares."""

from torch import Tensor, nn
from torch.nn import functional as F


class ConvBNReLU(nn.Module):
    """Convolution with "same" zero padding, batch norm, ReLU: the field's unit.

    Args:
        bias: give the convolution a bias of its own (redundant in front of a batch norm, but some papers' weights hold one).
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


def resize(x: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Bilinear resize to ``size`` = (H, W); the same tensor where it already has that size."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)
