"""Several auxiliary heads at once, as SETR, ICNet and BiSeNet train with."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS
from lightning_app.util.errors import InputError


class Several(ContextHead):
    """Heads beside the one that predicts, each with a loss of the same weight; it predicts nothing itself.

    Shape: levels (B, in_channels[i], h_i, w_i) -> of each head, see there.

    Args:
        heads: for each {head: slug, and its arguments}, such as {head: fcn, channels: 64, levels: [0]}.

    Raises:
        InputError: none, an unknown head, or an argument that it does not have.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, *, heads: list[dict[str, Any]]) -> None:
        super().__init__(in_channels, num_classes, 1)
        del self.classifier  # each has its own
        if not heads:
            raise InputError("Several needs heads, such as [{head: fcn, channels: 64, levels: [0]}]")
        self.heads = nn.ModuleList(_head(spec, in_channels, num_classes) for spec in heads)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        raise InputError("Several heads predict nothing together: they stand in model.auxiliary")


def _head(spec: Mapping[str, Any], in_channels: Sequence[int], num_classes: int) -> nn.Module:
    arguments = dict(spec)
    slug = arguments.pop("head", None)
    if not isinstance(slug, str):
        raise InputError(f"Several: {dict(spec)} names no head, as {{head: fcn, channels: 64}} does")
    try:
        return HEADS[slug].cls(in_channels, num_classes, **arguments)
    except TypeError as error:
        raise InputError(f"Several cannot build {slug} from {arguments}: {error}") from error
