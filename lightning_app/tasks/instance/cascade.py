"""Heads in three rounds, each stricter about the boxes that the one before it moved."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_app.data.instance.instances import Instances
from lightning_app.tasks.instance.roi_heads import InstanceHeads
from lightning_app.tasks.instance.rpn import Sizes

OVERLAPS = (0.5, 0.6, 0.7)
PRECISIONS = ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))  # deviations of the centre's and of the sides' differences
WEIGHTS = (1.0, 0.5, 0.25)


class CascadeHeads(nn.ModuleList):
    """Cascade R-CNN: a box moved by one round is what the next one sees; scores and masks are means over the rounds.

    A round moves a box alike for all classes. The IoU from which on a box stands for an object rises from 0.5 to 0.7.

    Args:
        options: arguments of ``InstanceHeads``.

    Paper: https://arxiv.org/abs/1906.09756. Reference: mmdetection 3.3 CascadeRoIHead.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(
            InstanceHeads(
                *arguments,
                **options,
                overlap=overlap,
                precision=(1 / centre, 1 / centre, 1 / sides, 1 / sides),
                agnostic=True,
                beta=1.0,
            )
            for overlap, (centre, sides) in zip(OVERLAPS, PRECISIONS, strict=True)
        )

    @property
    def rounds(self) -> list[InstanceHeads]:
        """The heads, first to last."""
        return cast(list[InstanceHeads], list(self))

    def detect(self, levels: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sizes) -> list[Instances]:
        """As ``InstanceHeads.detect``: the last round's boxes, with the softmax of the mean logits of all."""
        said: list[Tensor] = []
        for heads in self.rounds:
            logits, codes = heads.judge(levels, proposals)
            said.append(logits)
            if heads is not self.rounds[-1]:
                proposals = heads.refine(logits, codes, proposals, sizes)
        return self.rounds[-1].pick(torch.stack(said).mean(0), codes, proposals, sizes)

    def mask_probabilities(self, levels: Sequence[Tensor], found: Sequence[Instances]) -> Tensor:
        """As ``InstanceHeads.mask_probabilities``: the mean of the rounds."""
        return torch.stack([heads.mask_probabilities(levels, found) for heads in self.rounds]).mean(0)

    def losses(
        self, levels: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sizes, targets: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """Losses of all rounds, the later ones with less weight."""
        terms: dict[str, Tensor] = {}
        for number, (heads, weight) in enumerate(zip(self.rounds, WEIGHTS, strict=True)):
            of_round, proposals = heads.learn(levels, proposals, sizes, targets)
            terms |= {f"{name}_{number}": weight * term for name, term in of_round.items()}
        return terms
