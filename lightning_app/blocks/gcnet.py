"""Global context block. arXiv:1904.11492."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1
from lightning_app.blocks._looks import At, Look
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import check_choice


@BLOCKS.register("gcnet", paper="arXiv:1904.11492", year=2019)
class GlobalContext(nn.Module):
    """One vector that describes the whole map, given to every position.

    c = sum_n softmax_N(w.x)_n x_n ("att") or mean_n x_n ("avg"); out = x * sigmoid(t_mul(c)) + t_add(c), each t a
    1x1 - LayerNorm - ReLU - 1x1 whose last convolution starts at 0.

    Shape: (B, channels, H, W) -> the same.

    Args:
        ratio: width of the transforms over ``channels``.
        pooling: how the vector is gathered.
        fusion: how it is given back: "add", "mul" or both.

    Reference: github.com/xvjiarui/GCNet.
    """

    def __init__(
        self,
        channels: int,
        ratio: float = 1 / 4,
        *,
        pooling: Literal["att", "avg"] = "att",
        fusion: Sequence[Literal["add", "mul"]] = ("add",),
    ) -> None:
        super().__init__()
        check_choice("pooling", pooling, ("att", "avg"))
        for way in fusion:
            check_choice("fusion", way, ("add", "mul"))
        hidden = max(int(channels * ratio), 1)
        self.mask = Conv1x1(channels, 1) if pooling == "att" else None
        self.add = _transform(channels, hidden) if "add" in fusion else None
        self.mul = _transform(channels, hidden) if "mul" in fusion else None
        if self.mask is not None:
            nn.init.kaiming_normal_(self.mask.weight)

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None:
            context = x.mean((2, 3), keepdim=True)
        else:
            weights = self.mask(x).flatten(2).softmax(-1)
            context = (x.flatten(2) @ weights.mT).unsqueeze(-1)
        if self.mul is not None:
            x = x * self.mul(context).sigmoid()
        if self.add is not None:
            x = x + self.add(context)
        return x

    def looks(self, at: At, x: Tensor) -> list[Look]:
        """What the one vector is gathered from, the same for all positions."""
        mask = x.new_zeros(1, 1, *x.shape[2:]) if self.mask is None else self.mask(x)
        return [Look("global context", mask.flatten().softmax(0).view(mask.shape[-2:]))]


def _transform(channels: int, hidden: int) -> nn.Sequential:
    last = Conv1x1(hidden, channels)
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.zeros_(last.bias)
    return nn.Sequential(Conv1x1(channels, hidden), nn.LayerNorm([hidden, 1, 1]), nn.ReLU(), last)
