"""Segmenter: class tokens among the patches. arXiv:2105.05633."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.blocks._attention import to_map
from lightning_app.blocks._layers import unit
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS
from lightning_app.util.errors import InputError


@HEADS.register("segmenter", paper="arXiv:2105.05633", year=2021)
class Segmenter(ContextHead):
    """One token per class runs through transformer layers beside the patches and then asks each of them.

    [y, c] = LN(T(...T([W x, classes]))), T a pre-norm transformer layer; logits_k = LN_K(u(V y) . u(U c_k)), u the unit
    vector and LN_K a layer norm over the classes of each position.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w) of ``level``.

    Args:
        layers: transformer layers.
        heads: attention heads of each.
        level: index of the backbone level it reads.

    Raises:
        InputError: ``channels`` is no multiple of ``heads``.

    Reference: OpenMMLab's SegmenterMaskTransformerHead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 192,
        layers: int = 2,
        heads: int = 3,
        level: int = -1,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, num_classes, **options)
        if channels % heads:
            raise InputError(f"Segmenter with {heads} heads needs channels that they divide, not {channels}")
        if self.refine is None:  # what comes out are logits
            self.classifier = nn.Identity()  # type: ignore[assignment]
        self.level = level
        self.project = nn.Linear(in_channels[level], channels)
        self.classes = nn.Parameter(torch.empty(1, num_classes, channels))
        nn.init.trunc_normal_(self.classes, std=0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(channels, heads, 4 * channels, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.patch_query = nn.Linear(channels, channels, bias=False)
        self.class_query = nn.Linear(channels, channels, bias=False)
        self.logit_norm = nn.LayerNorm(num_classes)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        x = self.dropout(features[self.level])
        tokens = self.project(x.flatten(2).mT)
        tokens = torch.cat([tokens, self.classes.expand(x.shape[0], -1, -1)], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        patches, classes = self.norm(tokens).split([x.shape[-2] * x.shape[-1], self.classes.shape[1]], dim=1)
        similarity = unit(self.patch_query(patches), -1) @ unit(self.class_query(classes), -1).mT
        return to_map(self.logit_norm(similarity), x.shape[-2:])

    def classify(self, x: Tensor, features: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.classifier(self.refined(x, features))
        return logits
