"""K-Net's kernel update: masks gather what is theirs, and the kernels learn from it. arXiv:2106.14855."""

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import resize


class AdaptiveUpdate(nn.Module):
    """A kernel k takes over part of what its mask gathered, g.

    G = W_1 g * W_2 k; k' = ReLU(LN(W_3 (s(LN(U G)) * LN(W_4 k) + s(LN(V G)) * LN(W_5 g)))), s the sigmoid.

    Shape: gathered (M, width), kernels (M, width) -> (M, width).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dynamic = nn.Linear(width, 2 * width)  # of what was gathered
        self.static = nn.Linear(width, 2 * width)  # of the kernel
        self.static_gate, self.dynamic_gate = nn.Linear(width, width), nn.Linear(width, width)
        self.static_gate_norm, self.dynamic_gate_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.static_norm, self.dynamic_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.out, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, gathered: Tensor, kernels: Tensor) -> Tensor:
        dynamic_in, dynamic_out = self.dynamic(gathered).chunk(2, dim=-1)
        static_in, static_out = self.static(kernels).chunk(2, dim=-1)
        gate = static_in * dynamic_in
        static_gate = self.static_gate_norm(self.static_gate(gate)).sigmoid()
        dynamic_gate = self.dynamic_gate_norm(self.dynamic_gate(gate)).sigmoid()
        mixed = dynamic_gate * self.dynamic_norm(dynamic_out) + static_gate * self.static_norm(static_out)
        updated: Tensor = self.norm(self.out(mixed)).relu()
        return updated


class KernelUpdate(nn.Module):
    """One round: gather by the masks, update the kernels, let them attend one another, and make masks with them.

    f = conv1(x); g_k = sum_n softmax_k(mask_n)_k f_n; k = LN(k' + A(k')), k' as ``AdaptiveUpdate``; k = LN(k + FFN(k));
    mask = (W ReLU(LN(...k))) . f.

    Shape: features (B, channels, H, W), kernels (B, K, channels), masks (B, K, h, w) -> masks (B, K, H, W) and kernels.

    Args:
        heads: attention heads between kernels.
        feedforward: hidden width of the FFN.
        layers: layers in front of the masks' own.
        width: channels are updated in chunks of this many.

    Reference: OpenMMLab's KernelUpdateHead and KernelUpdator.
    """

    def __init__(self, channels: int, heads: int, feedforward: int, layers: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.transform = nn.Conv2d(channels, channels, 1)
        self.update = AdaptiveUpdate(width)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(channels)
        self.ffn = nn.Sequential(nn.Linear(channels, feedforward), nn.ReLU(), nn.Linear(feedforward, channels))
        self.ffn_norm = nn.LayerNorm(channels)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU())
                for _ in range(layers)
            )
        )
        self.out = nn.Linear(channels, channels)

    def forward(self, features: Tensor, kernels: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        x = self.transform(features)
        share = resize(masks, x.shape[-2:]).softmax(1)
        gathered = share.flatten(2).to(x.dtype) @ x.flatten(2).mT
        chunks = gathered.reshape(-1, self.width), kernels.reshape(-1, self.width)
        kernels = self.update(*chunks).view_as(gathered)
        attended, _ = self.attention(kernels, kernels, kernels, need_weights=False)
        kernels = self.attention_norm(kernels + attended)
        kernels = self.ffn_norm(kernels + self.ffn(kernels))
        masks = torch.einsum("bkc,bchw->bkhw", self.out(self.layers(kernels)), x)
        return masks, kernels
