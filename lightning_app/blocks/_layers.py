"""The few layers that every paper shares."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.kernels import depthwise, is_fast
from lightning_app.kernels.products import conv1x1


class Conv1x1(nn.Conv2d):
    """1x1 convolution, the faster way of ``conv1x1``."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        return conv1x1(input, self.weight, self.bias)


class Conv(nn.Conv2d):
    """``nn.Conv2d`` whose backward pass is that of ``lightning_app.kernels.depthwise``."""

    def forward(self, input: Tensor) -> Tensor:
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        return depthwise.conv2d(input, self.weight, self.bias, *geometry)  # type: ignore[arg-type]


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
        self.conv = (
            Conv1x1(in_channels, out_channels, bias)
            if kernel_size == groups == 1
            else Conv(in_channels, out_channels, kernel_size, 1, padding, dilation, groups, bias)
        )
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.conv(x))

    def finish(self, x: Tensor) -> Tensor:
        """Batch norm and activation of a convolution that was computed elsewhere."""
        x = self.bn(x)
        if self.slope is None:
            return x
        return F.relu(x, inplace=True) if self.slope == 0 else F.leaky_relu(x, self.slope, inplace=True)


class SeparableConvBNReLU(nn.Sequential):
    """Depthwise convolution, then a 1x1: each with batch norm and ReLU.

    Args:
        slope: as in ``ConvBNReLU``, of the depthwise convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, dilation: int = 1, slope: float | None = 0.0
    ) -> None:
        super().__init__()
        self.depthwise = ConvBNReLU(
            in_channels, in_channels, kernel_size, dilation=dilation, groups=in_channels, slope=slope
        )
        self.pointwise = ConvBNReLU(in_channels, out_channels)


def resize(x: Tensor, size: tuple[int, ...], align_corners: bool = False) -> Tensor:
    """Bilinear resize to ``size`` = (H, W); the same tensor where it already has that size."""
    if _has_size(x, size):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


def _has_size(x: Tensor, size: tuple[int, ...]) -> bool:
    """Whether a map has that size; of a graph that is exported, whether it has it for images of every size."""
    if not torch.compiler.is_exporting():
        return x.shape[-2:] == size
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return all(statically_known_true(side == wanted) for side, wanted in zip(x.shape[-2:], size, strict=True))


def unit(x: Tensor, dim: int) -> Tensor:
    """x / max(|x|_2, eps) along ``dim``, in float32 at least; a vector of zeros stays one.

    fp16 has no 1e-12, the eps of the references: there 1e-3 keeps 0 / 0, and an endless gradient at 0, away.
    """
    eps = 1e-3 if x.dtype == torch.float16 else 1e-12
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=dim, eps=eps).to(x.dtype)


def adaptive_avg_pool(x: Tensor, size: int) -> Tensor:
    """Mean over ``size`` x ``size`` cells: (B, C, H, W) -> (B, C, size, size), as torch's adaptive pooling.

    Cell i covers rows floor(iH/size) <= j < ceil((i+1)H/size); columns alike. Written as two products with 0/1 matrices
    made from H and W: an exported graph keeps H and W free, where torch's own operator freezes them for size > 1.
    """
    if size == 1:
        return F.adaptive_avg_pool2d(x, 1)
    rows, columns = cells(x, x.shape[-2], size), cells(x, x.shape[-1], size)
    x = (x @ columns.T) / columns.sum(1)
    return (rows @ x) / rows.sum(1, keepdim=True)


def cells(like: Tensor, length: int, count: int) -> Tensor:
    """Membership (count, length) of positions in cells, in the dtype and on the device of ``like``."""
    cell = torch.arange(count, device=like.device)[:, None]
    position = torch.arange(length, device=like.device)
    inside = (position >= cell * length // count) & (position < ((cell + 1) * length + count - 1) // count)
    return inside.to(like.dtype)


def fuse_upsampled(fuse: ConvBNReLU, x: Tensor, maps: Sequence[Tensor], align_corners: bool = False) -> Tensor:
    """``fuse`` of ``x`` and the smaller ``maps``, resized to its size and concatenated behind it.

    The maps are convolved before they are enlarged (see ``conv_upsampled``): less work, and no large maps.
    """
    if not is_fast():
        enlarged = [resize(each, x.shape[-2:], align_corners) for each in maps]
        return fuse.finish(fuse.conv(torch.cat([x, *enlarged], dim=1)))
    of_x, of_maps = fuse.conv.weight[:, : x.shape[1]], fuse.conv.weight[:, x.shape[1] :]
    y = F.conv2d(x, of_x, padding=fuse.conv.kernel_size[0] // 2)
    return fuse.finish(y + conv_upsampled(maps, of_maps, x.shape[-2:], align_corners))


def conv_upsampled(
    maps: Sequence[Tensor], weight: Tensor, size: tuple[int, ...], align_corners: bool = False
) -> Tensor:
    """Convolve small maps as if each had been resized to ``size`` and all concatenated, without making those maps.

    Resizing is a product with an (H, h) and a (W, w) matrix of bilinear weights, so an odd kernel with "same" zero
    padding can act on the small map first; what is left to do per pixel is sum_i k h_i products per output channel
    instead of k^2 C.

    Shape: maps (B, C_i, h_i, w_i), weight (O, sum C_i, k, k) -> (B, O, *size).
    """
    kernel = weight.shape[-1]
    if not is_fast():
        enlarged = torch.cat([resize(x, size, align_corners) for x in maps], dim=1)
        return F.conv2d(enlarged, weight, padding=kernel // 2)
    columns, rows = [], []
    for x, part in zip(maps, torch.split_with_sizes(weight, [x.shape[1] for x in maps], dim=1), strict=True):
        taps = torch.einsum("oikl,biyx->bokylx", part, x).flatten(4).flatten(2, 3)  # (B, O, k h, k w)
        columns.append(taps @ _bilinear_taps(x, x.shape[-1], size[1], kernel, align_corners).T)
        rows.append(_bilinear_taps(x, x.shape[-2], size[0], kernel, align_corners))
    return torch.cat(rows, dim=1) @ torch.cat(columns, dim=2)


def _bilinear_taps(like: Tensor, count: int, length: int, kernel: int, align_corners: bool) -> Tensor:
    """(length, kernel * count): the share of each small position in what a kernel tap sees; 0 outside the map."""
    position = torch.arange(length, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
    if align_corners:
        source = position * ((count - 1) / max(length - 1, 1))
    else:
        source = ((position + 0.5) * (count / length) - 0.5).clamp(0, count - 1)
    weights = (1 - (source[:, None] - torch.arange(count, device=like.device)).abs()).clamp(min=0)
    padded = F.pad(weights, (0, 0, kernel // 2, kernel // 2))
    return torch.cat([padded[tap : tap + length] for tap in range(kernel)], dim=1).to(like.dtype)
