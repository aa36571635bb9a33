"""DPT: dense prediction transformer. arXiv:2103.13413."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import Conv1x1, ConvBNReLU, resize
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS
from lightning_app.util.errors import InputError, check_choice


class Reassemble(nn.Module):
    """A level of a plain transformer with its class token read into every position, at another width and scale.

    y = rescale(conv1(read(x, t))), read = GELU(W [x, t]) ("project"), x + t ("add") or x ("ignore").

    Shape: (B, 2 C, h, w), x and t side by side ((B, C, h, w) where nothing is read) -> (B, width, scale h, scale w).
    """

    def __init__(self, in_channels: int, width: int, scale: float, readout: str) -> None:
        super().__init__()
        self.readout = readout
        inner = in_channels if readout == "ignore" else in_channels // 2
        self.read = nn.Sequential(nn.Linear(in_channels, inner), nn.GELU()) if readout == "project" else None
        self.project = Conv1x1(inner, width)
        self.rescale: nn.Module = nn.Identity()
        if scale > 1:
            self.rescale = nn.ConvTranspose2d(width, width, int(scale), int(scale))
        elif scale < 1:
            self.rescale = nn.Conv2d(width, width, 3, round(1 / scale), 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.read is not None:
            x = self.read(x.movedim(1, -1)).movedim(-1, 1)
        elif self.readout == "add":
            x = sum(x.chunk(2, dim=1))  # type: ignore[assignment]
        rescaled: Tensor = self.rescale(self.project(x))
        return rescaled


class Residual(nn.Module):
    """x + BN(conv3(ReLU(BN(conv3(ReLU(x)))))). Shape: (B, channels, h, w) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(ConvBNReLU(channels, channels, 3, slope=None) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs:
            y = conv(F.relu(y))
        return x + y


class Fusion(nn.Module):
    """conv1(up2(R(x + R'(lateral)))): what is coarser, with a lateral level, at twice its size.

    Shape: (B, channels, h, w), lateral (B, channels, h', w') or none -> (B, channels, 2h, 2w).
    """

    def __init__(self, channels: int, *, lateral: bool) -> None:
        super().__init__()
        self.lateral = Residual(channels) if lateral else None
        self.residual = Residual(channels)
        self.project = Conv1x1(channels, channels)

    def forward(self, x: Tensor, level: Tensor | None = None) -> Tensor:
        if self.lateral is not None and level is not None:
            x = x + self.lateral(resize(level, x.shape[-2:]))
        x = F.interpolate(self.residual(x), scale_factor=2, mode="bilinear", align_corners=True)
        projected: Tensor = self.project(x)
        return projected


@HEADS.register("dpt", paper="arXiv:2103.13413", year=2021)
class DPT(ContextHead):
    """A plain transformer's levels made into a pyramid and fused from the coarsest to the finest.

    y_i = conv3(reassemble_i(x_i)); z_n = F(y_n), z_i = F(z_i+1, y_i), each z twice the size of the one before;
    logits = classify(CBR3(z_1)).

    Shape: levels (B, in_channels[i], h, w) -> (B, num_classes, H, W), H = 8 h of four levels' h.

    Args:
        widths: of the reassembled levels.
        scales: of the reassembled levels.
        readout: how the class token, which the backbone's ``class_token: concat`` puts beside each position, is read;
            "ignore": the backbone gives none.
        levels: backbone levels it reads, finest first; all where not given.

    Raises:
        InputError: not one width and one scale for each level.

    Reference: OpenMMLab's DPTHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        widths: Sequence[int] = (96, 192, 384, 768),
        scales: Sequence[float] = (4, 2, 1, 0.5),
        readout: Literal["ignore", "add", "project"] = "ignore",
        levels: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, **options)
        check_choice("readout", readout, ("ignore", "add", "project"))
        self.levels = tuple(range(len(in_channels)) if levels is None else levels)
        if min(len(widths), len(scales)) < len(self.levels):
            raise InputError(f"DPT reads {len(self.levels)} levels: give widths and scales for each")
        parts = list(zip(self.levels, widths, scales, strict=False))
        self.reassemble = nn.ModuleList(
            Reassemble(in_channels[level], width, scale, readout) for level, width, scale in parts
        )
        self.convs = nn.ModuleList(nn.Conv2d(width, channels, 3, padding=1, bias=False) for _, width, _ in parts)
        self.fusions = nn.ModuleList(Fusion(channels, lateral=i > 0) for i in range(len(parts)))
        self.project = ConvBNReLU(channels, channels, 3)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        modules = zip(self.levels, self.reassemble, self.convs, strict=True)
        coarsest, *finer = reversed([conv(reassemble(features[level])) for level, reassemble, conv in modules])
        x = self.fusions[0](coarsest)
        for fusion, level in zip(self.fusions[1:], finer, strict=True):
            x = fusion(x, level)
        projected: Tensor = self.project(x)
        return projected
