"""The GloRe unit as the formulas stand: states and their extension on the whole map."""

from torch import Tensor

from lightning_app.blocks import glore


class GlobalReasoning(glore.GlobalReasoning):
    def forward(self, x: Tensor) -> Tensor:
        state = self.state(x).flatten(2)
        projection = self.projection(x).flatten(2)
        node = state @ projection.transpose(1, 2)
        if self.normalize:
            node = node / state.shape[2]
        node = self.mix_nodes(node.transpose(1, 2)).transpose(1, 2) + node
        node = self.mix_states(node.relu())
        return x + self.norm(self.extend((node @ projection).unflatten(2, x.shape[2:])))
