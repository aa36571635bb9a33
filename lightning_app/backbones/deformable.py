"""Convolutions that move their taps by what they see."""

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class DeformableConv(nn.Conv2d):
    """y(p) = sum_k w_k x(p + k + o_k(p)), o a convolution of the same geometry that starts at 0.

    Shape: as the convolution that it stands for.

    Args:
        convolution: whose weights and geometry it takes.

    Paper: Dai et al., Deformable Convolutional Networks, https://arxiv.org/abs/1703.06211. Consulted: mmcv 2.1.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        geometry = {name: getattr(convolution, name) for name in ("kernel_size", "stride", "padding", "dilation")}
        super().__init__(
            convolution.in_channels, convolution.out_channels, **geometry, groups=convolution.groups, bias=False
        )
        self.weight = convolution.weight
        height, width = self.kernel_size
        self.conv_offset = nn.Conv2d(self.in_channels, 2 * height * width, **geometry)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)  # type: ignore[arg-type]

    def forward(self, input: Tensor) -> Tensor:
        geometry = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        offset = self.conv_offset(input)
        kept = torch.promote_types(offset.dtype, torch.float32)  # torchvision's kernel has no half precision on a CPU
        y: Tensor = deform_conv2d(input.to(kept), offset.to(kept), self.weight.to(kept), None, **geometry)
        return y.to(offset.dtype)
