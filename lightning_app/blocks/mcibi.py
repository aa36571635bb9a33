"""MCIBI: context beyond the image, from a memory of each class over the whole training set. arXiv:2108.11819."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.blocks.isnet import Correlation
from lightning_app.util.errors import check_choice


class MemoryContext(nn.Module):
    """Positions attend what a memory of the classes says of them, and then another map of the same image.

    m_n = sum_k softmax_k(l_n) M_k; y = CBR3([x, A(x, m)]); out = CBR3([A(x, context), y]), or y where none is given.

    ``update`` moves the memory; it is no parameter, and no gradient reaches it.

    Shape: x (B, channels, H, W), logits (B, num_classes, H, W), context as x -> (B, channels, H, W); memory
    (num_classes, channels).

    Args:
        inner: width of queries, keys and values.
        within: the module has the second part, which takes a context.

    Reference: sssegmentation's FeaturesMemory, with one vector for each class.
    """

    memory: Tensor

    def __init__(self, channels: int, num_classes: int, inner: int, *, within: bool = True) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(num_classes, channels))
        self.beyond = Correlation(channels, channels, inner)
        self.fuse = ConvBNReLU(2 * channels, channels, 3)
        self.within = Correlation(channels, channels, inner) if within else None
        self.fuse_within = ConvBNReLU(2 * channels, channels, 3) if within else None

    def forward(self, x: Tensor, logits: Tensor, context: Tensor | None = None) -> Tensor:
        remembered = torch.einsum("bkhw,kc->bchw", logits.softmax(1), self.memory.to(x.dtype))
        y: Tensor = self.fuse(torch.cat([x, self.beyond(x, remembered)], dim=1))
        if context is not None and self.within is not None and self.fuse_within is not None:
            y = self.fuse_within(torch.cat([self.within(x, context), y], dim=1))
        return y

    @torch.no_grad()
    def update(
        self,
        x: Tensor,
        labels: Tensor,
        momentum: float,
        *,
        strategy: Literal["mean", "cosine"] = "cosine",
        ignore_index: int = 255,
    ) -> None:
        """Move each class's vector towards that of the positions that have its label.

        M_k = (1 - momentum) M_k + momentum sum_n w_n x_n, w equal, or as 1 - cos(x_n, M_k); an empty vector, all zeros,
        becomes the plain mean.

        Args:
            labels: (B, H, W), class of each position.
        """
        check_choice("strategy", strategy, ("mean", "cosine"))
        vectors, labels = x.movedim(1, -1).flatten(0, 2), labels.flatten()
        for number in sorted(set(labels.tolist())):
            if number == ignore_index:
                continue
            own, old = vectors[labels == number], self.memory[number]
            mean = own.mean(0)
            if not old.any():
                self.memory[number] = mean
                continue
            if strategy == "cosine":
                weights = 1 - F.cosine_similarity(own, old.expand_as(own))
                mean = (own * (weights / weights.sum()).unsqueeze(-1)).sum(0)
            self.memory[number] = (1 - momentum) * old + momentum * mean
