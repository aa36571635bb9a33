"""K-Net: kernels that learn from what their masks gather, over any other head. arXiv:2106.14855."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_app.blocks.knet import KernelUpdate
from lightning_app.heads.base import Auxiliary, ContextHead, Outputs
from lightning_app.registry import HEADS
from lightning_app.util.errors import InputError


@HEADS.register("knet", paper="arXiv:2106.14855", year=2021)
class KNet(ContextHead):
    """Another head's classifier is where the kernels start; each round makes them anew from what their masks see.

    x = context of the first head, l_0 = classify(x), k_0 = the classifier's weight; l_i, k_i = U_i(x, k_i-1, l_i-1);
    logits = the last l. The side outputs are the others.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of the first head.

    Args:
        first: slug of the first head.
        arguments: of the first head, beside those given here.
        stages: rounds.
        heads, feedforward, layers: as in ``KernelUpdate``.
        width: channels are updated in chunks of this many; all at once where they are fewer.
        stage_weight: weight of each side output's loss.

    Raises:
        InputError: an argument that the first head does not have, or channels that width or heads do not divide.

    Reference: OpenMMLab's IterativeDecodeHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        first: str = "pspnet",
        arguments: dict[str, Any] | None = None,
        stages: int = 3,
        heads: int = 8,
        feedforward: int = 2048,
        layers: int = 1,
        width: int = 256,
        stage_weight: float = 1.0,
        **options: Any,
    ) -> None:
        own = {key: value for key, value in options.items() if key != "low_level_channels"}
        super().__init__(in_channels, num_classes, channels, **own)
        width = min(width, channels)
        if channels % width or channels % heads:
            raise InputError(f"KNet: channels {channels} must be a multiple of width {width} and of heads {heads}")
        cls = HEADS[first].cls
        try:
            self.first = cls(in_channels, num_classes, channels=channels, **options, **(arguments or {}))
        except TypeError as error:
            raise InputError(f"KNet cannot build its first head {first} from {arguments}: {error}") from error
        del self.first.classifier  # the kernels are this head's own
        self.stage_weight = stage_weight
        self.stages = nn.ModuleList(KernelUpdate(channels, heads, feedforward, layers, width) for _ in range(stages))

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x: Tensor = self.first.context(features)  # type: ignore[operator]
        return x

    def refined(self, x: Tensor, features: Sequence[Tensor]) -> Tensor:
        refined: Tensor = self.first.refined(x, features)  # type: ignore[operator]
        return refined

    def rounds(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The logits of the first head and of each round."""
        x = self.refined(self.context(features), features)
        logits = [self.classifier(self.dropout(x))]
        kernels = self.classifier.weight.flatten(1).expand(x.shape[0], -1, -1)
        for stage in self.stages:
            masks, kernels = stage(x, kernels, logits[-1])
            logits.append(masks)
        return logits

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.rounds(features)[-1]

    def outputs(self, features: Sequence[Tensor]) -> Outputs:
        *earlier, last = self.rounds(features)
        return Outputs(last, tuple(Auxiliary(logits, self.stage_weight) for logits in earlier))
