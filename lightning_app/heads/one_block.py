"""Any one block in the skeleton of the one-block papers."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_app.blocks._named import named_block
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("one_block", paper="arXiv:1709.01507", year=2018)
class OneBlock(BlockHead):
    """reduce -> any one block, squeeze and excitation where none is named -> project -> fuse -> classify.

    Blocks that have no head of their own, such as SE, CBAM and ECA, stand here where the others stand.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the level read.

    Args:
        block: its slug (contextzoo blocks).
        arguments: of the block.

    Raises:
        InputError: unknown block or argument.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        block: str = "se",
        arguments: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        chosen = named_block(block, channels, arguments or {})
        super().__init__(in_channels, num_classes, chosen, channels=channels, **options)
