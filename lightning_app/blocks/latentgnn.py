"""LatentGNN: messages between all positions by way of a small latent graph."""

from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import ConvBNReLU, unit
from lightning_app.kernels.products import matmul
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import check_choice


class LatentKernel(nn.Module):
    """One latent graph: visible -> latent -> visible, and its share of the convolution that merges the graphs.

    psi = ReLU(BN(conv(f))); symmetric: both assignments are psi, L2-normalised over the nodes; asymmetric: the way in
    is normalised over the positions, the way back, computed from features of its own, over the nodes. Z = psi_in f^T;
    Z <- softmax(Z^ Z^^T) Z with Z^ the L2-normalised rows, where ``graph``; the share is W Z^T psi_out.

    Shape: visible, back (B, channels, H, W), weight (out_channels, channels) -> (B, out_channels, N).
    """

    def __init__(
        self, channels: int, nodes: int, mode: Literal["symmetric", "asymmetric"], graph_conv: bool, graph: bool
    ) -> None:
        super().__init__()
        self.mode, self.graph = mode, graph
        self.psi_in = ConvBNReLU(channels, nodes)
        self.psi_out = ConvBNReLU(channels, nodes) if mode == "asymmetric" else None
        self.graph_conv = ConvBNReLU(channels, channels) if graph_conv else None
        if self.graph_conv is not None:
            nn.init.normal_(self.graph_conv.conv.weight, std=0.01)

    def forward(self, visible: Tensor, back: Tensor, weight: Tensor) -> Tensor:
        gather: Tensor = self.psi_in(visible).flatten(2)
        if self.psi_out is None:
            gather = distribute = unit(gather, dim=1)
        else:
            gather = unit(gather, dim=2)
            distribute = unit(self.psi_out(back).flatten(2), dim=1)
        nodes = matmul(gather, visible.flatten(2).mT)
        if self.graph:
            direction = unit(nodes, dim=-1)
            nodes = (direction @ direction.transpose(1, 2)).softmax(-1) @ nodes
        nodes = nodes.transpose(1, 2)
        if self.graph_conv is None:
            return matmul(weight @ nodes, distribute)
        latent: Tensor = self.graph_conv(matmul(nodes, distribute).view_as(visible))
        return matmul(weight, latent.flatten(2))


@BLOCKS.register("latentgnn", paper="arXiv:1905.11634", year=2019)
class LatentGraph(nn.Module):
    """The LatentGNN block: latent graphs on reduced features, merged and added back.

    f = L2norm_C(BN(conv x)); for each kernel Y_k = Z_k^T psi_out (optionally through conv-BN-ReLU);
    out = x + gamma BN(W [Y_1, Y_2, ...]), gamma starts at zero: the block starts as the identity.

    Without the graph convolution W_k Z_k^T is formed first, so Y is never built.

    Shape: (B, channels, H, W) -> the same. Time O(N nodes channels).

    Args:
        nodes: number of latent nodes of each kernel.
        stride: the reduced features have channels // stride channels.
        mode: "symmetric" shares one assignment for both ways; "asymmetric" learns one for each.
        graph_conv: a convolution on each kernel's visible features.
        graph: messages between the latent nodes.
        residual: add the input; without, out = BN(W [...]), and gamma is there but takes no part, as in the reference.

    Paper: https://arxiv.org/abs/1905.11634. Consulted: github.com/latentgnn/LatentGNN-V1-PyTorch.
    """

    def __init__(
        self,
        channels: int,
        *,
        nodes: Sequence[int] = (100,),
        stride: int = 4,
        mode: Literal["symmetric", "asymmetric"] = "asymmetric",
        graph_conv: bool = False,
        residual: bool = True,
        graph: bool = True,
    ) -> None:
        super().__init__()
        check_choice("mode", mode, ("symmetric", "asymmetric"))
        self.residual = residual
        width = channels // stride
        self.down = ConvBNReLU(channels, width, slope=None)
        self.down_back = ConvBNReLU(channels, width, slope=None) if mode == "asymmetric" else None
        self.kernels = nn.ModuleList(LatentKernel(width, n, mode, graph_conv, graph) for n in nodes)
        self.up = ConvBNReLU(width * len(nodes), channels, slope=None)
        self.gamma = nn.Parameter(torch.zeros(1), requires_grad=residual)

    def forward(self, x: Tensor) -> Tensor:
        visible = unit(self.down(x), dim=1)
        back = visible if self.down_back is None else unit(self.down_back(x), dim=1)
        weights = self.up.conv.weight.flatten(1).chunk(len(self.kernels), dim=1)
        y = reduce(torch.add, (k(visible, back, weight) for k, weight in zip(self.kernels, weights, strict=True)))
        out: Tensor = self.up.bn(y.view_as(x))
        return torch.addcmul(x, out, self.gamma) if self.residual else out
