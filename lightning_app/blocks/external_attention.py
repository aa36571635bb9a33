"""External attention: keys and values that all images share. arXiv:2105.02358."""

from torch import Tensor, nn

from lightning_app.blocks._attention import to_map
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError


class ExternalAttention(nn.Module):
    """Attention to two linear memories: A = softmax_N(M_k q), then divided by its sum over the slots; y = M_v A.

    Shape: (B, channels, H, W) -> the same.

    Args:
        slots: entries of each memory.
        heads: the channels are cut into so many parts, which share the memories.
        projections: a linear layer makes the query, and another the result.

    Raises:
        InputError: ``heads`` does not divide ``channels``.

    Reference: the paper's formulas.
    """

    def __init__(self, channels: int, slots: int = 64, *, heads: int = 1, projections: bool = False) -> None:
        super().__init__()
        if channels % heads:
            raise InputError(f"ExternalAttention cannot cut {channels} channels into {heads} heads")
        self.heads = heads
        self.query = nn.Linear(channels, channels) if projections else None
        self.keys = nn.Linear(channels // heads, slots, bias=False)
        self.values = nn.Linear(slots, channels // heads, bias=False)
        self.out = nn.Linear(channels, channels) if projections else None

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        query = tokens if self.query is None else self.query(tokens)
        query = query.view(*query.shape[:2], self.heads, -1).transpose(1, 2)  # (B, heads, N, C / heads)
        shares = self.keys(query).softmax(-2)
        y = self.values(shares / shares.sum(-1, keepdim=True)).transpose(1, 2).flatten(2)
        return to_map(y if self.out is None else self.out(y), x.shape[-2:])


@BLOCKS.register("external_attention", paper="arXiv:2105.02358", year=2021)
class ExternalAttentionUnit(nn.Module):
    """External attention between two 1x1 convolutions, added to the map: y = ReLU(x + BN(W' EA(W x + b))).

    Shape: (B, channels, H, W) -> the same.

    Args:
        slots, heads: as in ``ExternalAttention``.
    """

    def __init__(self, channels: int, slots: int = 64, *, heads: int = 1) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels, 1)
        self.attention = ExternalAttention(channels, slots, heads=heads)
        self.out = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (x + self.out(self.attention(self.reduce(x)))).relu()
        return y
