"""CARAFE: upsampling by kernels that the content predicts."""

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import Conv1x1
from lightning_app.kernels.windows import window_sum
from lightning_app.util.errors import InputError


class CARAFEUpsample(nn.Module):
    """Content-aware reassembly of features.

    m = softmax_{k x k}(pixel_shuffle(encoder(compressor(x)))); out(y, x) = sum_t m_t(y, x) x(floor(y / s) + t), per
    group of channels; taps outside the image add nothing.

    Computed at the low resolution for all s x s subpixels together: no k x k unfolding is built.
    Compressor Xavier uniform, encoder N(0, 0.001), biases zero: it starts close to a box filter.

    Shape: (B, channels, H, W) -> (B, channels, scale H, scale W).

    Args:
        scale: upsampling factor.
        kernel: side of the reassembly window, in pixels of the input.
        groups: groups of channels, each with kernels of its own.
        encoder_kernel: side of the encoder's convolution.
        encoder_dilation: its dilation.
        compressed: channels that the kernels are predicted from.

    Raises:
        InputError: if the groups do not divide the channels.

    Paper: https://arxiv.org/abs/1905.02188. Consulted: github.com/myownskyW7/CARAFE, mmcv's carafe.
    """

    def __init__(
        self,
        channels: int,
        *,
        scale: int = 2,
        kernel: int = 5,
        groups: int = 1,
        encoder_kernel: int = 3,
        encoder_dilation: int = 1,
        compressed: int = 64,
    ) -> None:
        super().__init__()
        if channels % groups:
            raise InputError(f"groups={groups} must divide channels={channels}.")
        self.scale, self.kernel, self.groups = scale, kernel, groups
        self.compressor = Conv1x1(channels, compressed)
        self.encoder = nn.Conv2d(
            compressed,
            kernel**2 * groups * scale**2,
            encoder_kernel,
            padding=(encoder_kernel - 1) * encoder_dilation // 2,
            dilation=encoder_dilation,
        )
        nn.init.xavier_uniform_(self.compressor.weight)
        nn.init.normal_(self.encoder.weight, std=0.001)
        for conv in (self.compressor, self.encoder):
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        (batch, channels), size = x.shape[:2], x.shape[2:]
        maps, parts = batch * self.groups, self.scale**2  # sizes in full: there may be no map at all
        weights = self.encoder(self.compressor(x)).reshape(maps, self.kernel**2, parts, *size).softmax(1)
        y = window_sum(x.reshape(maps, channels // self.groups, *size), weights)
        return F.pixel_shuffle(y.view(batch, channels * parts, *size), self.scale)
