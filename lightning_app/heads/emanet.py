"""EMANet: expectation-maximisation attention. arXiv:1907.13426."""

from collections.abc import Sequence
from typing import Any

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.blocks.emanet import EMAU
from lightning_app.heads.base import BlockHead
from lightning_app.registry import HEADS


@HEADS.register("emanet", paper="arXiv:1907.13426", year=2019)
class EMANet(BlockHead):
    """Attention to a few bases that expectation-maximisation fits to each image.

    logits = classify(CBR3(EMAU(CBR3(level)))); with ``concat_input`` the level is fused in again, as OpenMMLab does.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``level``.

    Args:
        bases, stages, momentum, unit_update, eps, learned: as in ``EMAU``.

    Reference: github.com/XiaLiPKU/EMANet (the behaviour, not the code); OpenMMLab's EMAHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        block_channels: int = 512,
        bases: int = 64,
        stages: int = 3,
        momentum: float = 0.1,
        unit_update: bool = False,
        eps: float = 1e-6,
        learned: bool = False,
        level: int = -1,
        concat_input: bool = False,
        **options: Any,
    ) -> None:
        block = EMAU(
            block_channels, bases, stages, momentum=momentum, unit_update=unit_update, eps=eps, learned=learned
        )
        super().__init__(
            in_channels,
            num_classes,
            block,
            channels=channels,
            level=level,
            concat_input=concat_input,
            **options,
        )
        self.reduce = ConvBNReLU(in_channels[level], block_channels, 3)  # the block is wider than the classifier
        self.project = ConvBNReLU(block_channels, channels, 3)
