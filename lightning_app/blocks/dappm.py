"""Deep aggregation pyramid pooling (DDRNet) and its parallel form (PIDNet). arXiv:2101.06085, arXiv:2206.02066."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import resize
from lightning_app.registry import BLOCKS

POOLS = ((5, 2), (9, 4), (17, 8))  # kernel and stride; the last scale is the mean of all


class NormReLUConv(nn.Module):
    """conv(ReLU(BN(x))), without bias. Shape: (B, in_channels, H, W) -> (B, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.relu(self.bn(x)))
        return y


@BLOCKS.register("dappm", paper="arXiv:2101.06085", year=2021)
class DAPPM(nn.Module):
    """Pyramid pooling in which each scale is given the one before.

    y_0 = c_0(x), y_i = c3_i(up(c_i(pool_i(x))) + y_i-1); out = c([y_0, ..., y_n]) + c'(x), each c norm, ReLU and a
    convolution. In parallel, y_i = c3_i(up(c_i(pool_i(x))) + y_0), all of them in one grouped convolution.

    Shape: (B, channels, H, W) -> (B, out_channels, H, W).

    Args:
        out_channels: width of the result, ``channels`` where not given.
        branch_channels: width of each scale, a quarter of ``channels`` where not given.
        parallel: PIDNet's form.

    Reference: OpenMMLab's DAPPM and PAPPM.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int | None = None,
        *,
        branch_channels: int | None = None,
        parallel: bool = False,
    ) -> None:
        super().__init__()
        width = max(channels // 4, 1) if branch_channels is None else branch_channels
        out, count = channels if out_channels is None else out_channels, len(POOLS) + 1
        self.scales = nn.ModuleList(NormReLUConv(channels, width) for _ in range(count + 1))
        self.parallel = parallel
        if parallel:
            self.processes = nn.ModuleList([NormReLUConv(width * count, width * count, 3, groups=count)])
        else:
            self.processes = nn.ModuleList(NormReLUConv(width, width, 3) for _ in range(count))
        self.compress = NormReLUConv(width * (count + 1), out)
        self.shortcut = NormReLUConv(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        first, *scales = self.scales
        pooled = [F.avg_pool2d(x, kernel, stride, kernel // 2) for kernel, stride in POOLS]
        pooled.append(F.adaptive_avg_pool2d(x, 1))
        maps = [resize(scale(y), x.shape[-2:]) for scale, y in zip(scales, pooled, strict=True)]
        made = [first(x)]
        if self.parallel:
            made.append(self.processes[0](torch.cat([y + made[0] for y in maps], dim=1)))
        else:
            for process, y in zip(self.processes, maps, strict=True):
                made.append(process(y + made[-1]))
        out: Tensor = self.compress(torch.cat(made, dim=1)) + self.shortcut(x)
        return out
