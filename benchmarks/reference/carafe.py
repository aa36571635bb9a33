"""CARAFE as the formulas stand: kernels at the high resolution, the unfolded input repeated for every subpixel."""

from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks import carafe


class CARAFEUpsample(carafe.CARAFEUpsample):
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        mask = F.pixel_shuffle(self.encoder(self.compressor(x)), self.scale)
        mask = mask.view(batch, self.groups, 1, -1, *mask.shape[2:]).softmax(3)
        taps = F.unfold(x, self.kernel, padding=self.kernel // 2).view(batch, -1, height, width)
        taps = F.interpolate(taps, scale_factor=self.scale, mode="nearest")
        taps = taps.view(batch, self.groups, channels // self.groups, -1, *taps.shape[2:])
        return (mask * taps).sum(3).flatten(1, 2)
