"""Graph-based global reasoning: project to a few nodes, convolve over their graph, project back."""

from torch import Tensor, nn

from lightning_app.blocks._layers import Conv1x1
from lightning_app.blocks._looks import At, Look, by_parts
from lightning_app.kernels import is_fast
from lightning_app.kernels.products import matmul
from lightning_app.registry import BLOCKS


@BLOCKS.register("glore", paper="arXiv:1811.12814", year=2019)
class GlobalReasoning(nn.Module):
    """The GloRe unit.

    V = X_s P^T with states X_s and projection P, both 1x1 convolutions of x;
    Z = W_s ReLU(W_n V + V), W_n over nodes (with bias), W_s over states;
    out = x + BN(W_e (Z P)).

    In ``fast`` the convolutions of the states and W_e act on the nodes instead of the positions: both commute with the
    products. The last batch norm's weight starts at zero, as in the authors' networks: the unit starts as the identity.

    Shape: (B, channels, H, W) -> the same.

    Args:
        nodes: nodes of the graph; channels // 4 if not given.
        states: width of a node; 2 * nodes if not given.
        normalize: divide V by the number of positions. The authors ask for it wherever the image size may change, as it
            does in segmentation between training and testing; their class leaves it off.
        graph: reason between gathering and handing back; without, Z = V.

    Paper: https://arxiv.org/abs/1811.12814. Consulted: github.com/facebookresearch/GloRe.
    """

    def __init__(
        self,
        channels: int,
        *,
        nodes: int | None = None,
        states: int | None = None,
        normalize: bool = True,
        graph: bool = True,
    ) -> None:
        super().__init__()
        nodes = nodes or channels // 4
        states = states or 2 * nodes
        self.normalize = normalize
        self.state = Conv1x1(channels, states)
        self.projection = Conv1x1(channels, nodes)
        self.mix_nodes = nn.Conv1d(nodes, nodes, 1) if graph else None
        self.mix_states = nn.Conv1d(states, states, 1, bias=False) if graph else None
        self.extend = Conv1x1(states, channels, bias=False)
        self.norm = nn.BatchNorm2d(channels, eps=1e-4)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        if is_fast():
            return self.fast(x)
        state, projection = self.state(x).flatten(2), self.projection(x).flatten(2)  # (B, states, N), (B, nodes, N)
        node = state @ projection.mT  # (B, states, nodes)
        if self.normalize:
            node = node / state.shape[2]
        extended = self.extend((self.reason(node) @ projection).unflatten(2, x.shape[2:]))  # (B, channels, H, W)
        out: Tensor = x + self.norm(extended)
        return out

    def fast(self, x: Tensor) -> Tensor:
        """The same, with the outer convolutions on the nodes."""
        projection = self.projection(x).flatten(2)
        positions = projection.shape[2]
        gathered = matmul(x.flatten(2), projection.mT)
        node = self.state.weight.flatten(1) @ gathered
        if self.state.bias is not None:
            node = node + self.state.bias.view(-1, 1) * projection.sum(-1).unsqueeze(1)
        if self.normalize:
            node = node / positions
        node = self.extend.weight.flatten(1) @ self.reason(node)
        rebuilt: Tensor = self.norm(matmul(node, projection).view_as(x))
        return x + rebuilt

    def reason(self, node: Tensor) -> Tensor:
        """The step over the graph: W_s ReLU(W_n V + V), or V itself where there is none. (B, states, nodes)."""
        if self.mix_nodes is None or self.mix_states is None:
            return node
        mixed: Tensor = self.mix_states((self.mix_nodes(node.mT).mT + node).relu())
        return mixed

    def looks(self, at: At, x: Tensor) -> list[Look]:
        """The nodes that the position reads, each by the positions that it is gathered from; what nodes say to each
        other is left out."""
        projection = self.projection(x)[0]
        gathered = projection / (projection.shape[1] * projection.shape[2] if self.normalize else 1)
        return by_parts("node", projection[:, at[0], at[1]], gathered, signed=True)
