"""Symbolic graph reasoning: vote into nodes that stand for concepts, reason over a given graph, map back."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1
from lightning_app.kernels.products import matmul
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError

Matrix = Tensor | Sequence[Sequence[float]]


@BLOCKS.register("sgr", paper="NeurIPS 2018", year=2018)
class SymbolicReasoning(nn.Module):
    """The symbolic graph reasoning layer.

    vote    a_in = softmax_n(W_a x_i);  H_n = 1/N sum_i a_in x_i W_ps;
    reason  G = ReLU(A^ [H; S] W_g),  A^ = D^-1/2 (A + I) D^-1/2 of the prior graph A, S the nodes' embeddings;
    map     out_i = x_i + ReLU(sum_n a_ni G_n W_sp).

    No code of the authors is public; where the paper leaves a choice this is the reading taken. The vote has no ReLU
    and is a mean over positions: the paper's sum differs by a factor that W_ps absorbs at a fixed image size, the
    mean also serves other sizes. The paper's additive map a_ni = softmax_i(w [G_n, x_i]) cannot tell nodes apart: the
    node's part is constant over i and cancels, every node lands on the same map softmax_i(w x_i), and the result has
    rank one (a softmax over nodes would cancel the pixel's part instead). ``mapping="additive"`` is that map, without
    the parameters that cancel; the default compares bilinearly, a_ni = softmax_n(G_n W x_i / sqrt(channels)), so that
    every position mixes the nodes by weights of its own which sum to one.

    All products with N positions keep the nodes on one side: W_ps, W_sp and the bilinear form act on nodes only.
    Weights keep PyTorch's own initialisation.

    Shape: (B, channels, H, W) -> the same.

    Args:
        nodes: number of concepts; as many as the prior has if one is given.
        adjacency: prior graph A, (nodes, nodes), symmetric and not negative; no edges if not given (A^ = identity).
        embeddings: word vectors S of the nodes, (nodes, any width); one-hot if not given.
        width: width of a node; ``channels`` if not given.
        mapping: "bilinear" or the paper's "additive".
        graph: reason between voting and mapping back; without, G = H.

    Raises:
        InputError: if the prior's sizes do not agree, or neither nodes nor prior are given, or A is negative somewhere.

    Paper: Liang et al., Symbolic Graph Reasoning Meets Convolutions, NeurIPS 2018. Consulted:
    github.com/julianschoep/SGRLayer (TensorFlow, third party).
    """

    adjacency: Tensor
    embeddings: Tensor

    def __init__(
        self,
        channels: int,
        *,
        nodes: int | None = None,
        adjacency: Matrix | None = None,
        embeddings: Matrix | None = None,
        width: int | None = None,
        mapping: Literal["bilinear", "additive"] = "bilinear",
        graph: bool = True,
    ) -> None:
        super().__init__()
        sizes = {len(prior) for prior in (adjacency, embeddings) if prior is not None}
        sizes |= {nodes} if nodes is not None else set()
        if len(sizes) > 1:
            raise InputError(f"nodes, adjacency and embeddings name different numbers of nodes: {sorted(sizes)}.")
        nodes = sizes.pop() if sizes else 32
        width = width or channels
        prior = torch.zeros(nodes, nodes)
        if adjacency is not None:
            prior = torch.as_tensor(adjacency, dtype=torch.float32)
            if prior.shape != (nodes, nodes) or bool((prior < 0).any()):
                raise InputError(
                    f"adjacency must be a square matrix without negative entries, not {tuple(prior.shape)}."
                )
        prior = prior + torch.eye(nodes)
        scale = prior.sum(1).rsqrt()
        words = torch.eye(nodes) if embeddings is None else torch.as_tensor(embeddings, dtype=torch.float32)
        self.register_buffer("adjacency", scale[:, None] * prior * scale)
        self.register_buffer("embeddings", words)
        self.mapping = mapping
        self.vote = Conv1x1(channels, nodes)
        self.enter = nn.Linear(channels, width, bias=False)
        self.reason = nn.Linear(width + words.shape[1], width, bias=False) if graph else None
        self.leave = nn.Linear(width, channels, bias=False)
        self.compare = nn.Linear(width, channels, bias=False) if mapping == "bilinear" else None
        self.focus = Conv1x1(channels, 1, bias=False) if mapping == "additive" else None

    def nodes(self, x: Tensor) -> Tensor:
        """The nodes after reasoning, (B, nodes, width)."""
        votes = self.vote(x).flatten(2).softmax(1)
        gathered = matmul(votes, x.flatten(2).mT) / votes.shape[-1]
        entered: Tensor = self.enter(gathered)
        if self.reason is None:
            return entered
        words = self.embeddings.expand(x.shape[0], -1, -1)
        reasoned: Tensor = self.reason(torch.cat([entered, words], dim=-1))
        return torch.relu(self.adjacency @ reasoned)

    def back(self, nodes: Tensor, x: Tensor) -> Tensor:
        """How much every position takes from every node, (B, nodes, N)."""
        if self.compare is not None:
            return torch.softmax(matmul(self.compare(nodes), x.flatten(2)) / x.shape[1] ** 0.5, dim=1)
        assert self.focus is not None
        shared = torch.softmax(self.focus(x).flatten(2), dim=-1)
        return shared.expand(-1, nodes.shape[1], -1)

    def forward(self, x: Tensor) -> Tensor:
        nodes = self.nodes(x)
        message: Tensor = matmul(self.leave(nodes).mT, self.back(nodes, x))
        return x + message.relu_().view_as(x)
