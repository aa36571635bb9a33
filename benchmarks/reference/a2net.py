"""Double attention as the formulas stand: both outer convolutions on the whole map."""

from torch import Tensor

from lightning_app.blocks import a2net


class DoubleAttention(a2net.DoubleAttention):
    def forward(self, x: Tensor) -> Tensor:
        gathered = self.feature(x).flatten(2) @ self.gather(x).flatten(2).softmax(2).transpose(1, 2)
        out = (gathered @ self.distribute(x).flatten(2).softmax(1)).unflatten(2, x.shape[2:])
        if self.expand is not None:
            out = self.expand(out)
        return x + out if self.residual else out
