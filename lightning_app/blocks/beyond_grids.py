"""Beyond Grids: assign positions to learned vertices, let the vertices speak, hand the result back."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.kernels.products import conv1x1, matmul
from lightning_app.registry import BLOCKS


def _weights_loaded(module: "GraphUnits", _: object) -> None:
    module.placed = True


@BLOCKS.register("beyond_grids", paper="NeurIPS 2018", year=2018)
class GraphUnits(nn.Module):
    """Graph convolutional units with several numbers of vertices in parallel.

    assign  q_ik = softmax_k(-|(x_i - w_k) / s_k|^2 / 2), s_k = sigmoid of a free parameter;
    gather  z_k = sum_i q_ik (x_i - w_k) / s_k / sum_i q_ik, then divided by its L2 norm;
    reason  Z~ = ReLU(BN(A Z^T W_g)), A = Z^T Z;
    spread  y_i = sum_k q_ik Z~_k;
    out = ReLU(BN(W [x, y of every unit])).

    No code of the authors is public; the reading taken: f in their Z~ = f(A Z^T W_g) is batch norm over the vertices
    and ReLU, the concatenation is brought back to ``channels`` by a 1x1 convolution, and their diversity regulariser,
    of which neither form nor weight is certain, is left out.

    The units share one product with the positions each way, squared distances are expanded into products, and W acts on
    vertices instead of positions. Anchors start by k-means of the first training batch (w the means, s the standard
    deviations of the clusters, within 0.1 and 0.99: smaller ones make q so hard that no gradient moves it), unless
    weights were loaded. Distances are computed in the parameters'
    precision also under autocast: bf16 would lose them.

    Shape: (B, channels, H, W) -> the same.

    Args:
        vertices: number of vertices of each unit.
        width: channels of Z~; channels // 4 if not given.
        graph: let the vertices speak; without, Z~ = Z^T W_g.

    Paper: Li and Gupta, Beyond Grids: Learning Graph Representations for Visual Recognition, NeurIPS 2018.
    """

    def __init__(
        self, channels: int, *, vertices: Sequence[int] = (2, 4, 8, 32), width: int | None = None, graph: bool = True
    ) -> None:
        super().__init__()
        self.width, self.graph = width or channels // 4, graph
        self.vertices = list(vertices)
        self.anchors = nn.Parameter(torch.rand(sum(vertices), channels))
        self.scales = nn.Parameter(torch.zeros(sum(vertices), channels))
        self.reason = nn.ModuleList(nn.Linear(channels, self.width, bias=False) for _ in vertices)
        self.norm = nn.ModuleList(nn.BatchNorm1d(self.width) if graph else nn.Identity() for _ in vertices)
        self.fuse = ConvBNReLU(channels + self.width * len(self.vertices), channels)
        self.placed = False
        self.register_load_state_dict_post_hook(_weights_loaded)  # type: ignore[no-untyped-call]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def place(self, x: Tensor, iterations: int = 10) -> None:
        """Put the anchors on the k-means of the features x (B, channels, H, W), the same on every rank."""
        points = x.transpose(0, 1).flatten(1).t().to(self.anchors.dtype)
        points = points[torch.randperm(len(points), device=x.device)[:16384]]
        for anchors, scales in zip(
            torch.split(self.anchors, self.vertices), torch.split(self.scales, self.vertices), strict=True
        ):
            count = len(anchors)
            centres = points[:count]
            centres = centres.repeat(-(-count // len(centres)), 1)[:count].clone()
            for _ in range(iterations):
                nearest = F.one_hot(torch.cdist(points, centres).argmin(1), count).to(points)
                members = nearest.sum(0).unsqueeze(1)
                centres = torch.where(members > 0, nearest.t() @ points / members.clamp_min(1), centres)
            variance = nearest.t() @ (points - nearest @ centres).square() / members.clamp_min(1)
            anchors.copy_(centres)
            scales.copy_(variance.sqrt().clamp(0.1, 0.99).logit())
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.broadcast(self.anchors.data, 0)
            torch.distributed.broadcast(self.scales.data, 0)
        self.placed = True

    def assign(self, x: Tensor) -> list[Tensor]:
        """The soft assignment q of every unit, (B, vertices, N) each, sums over vertices one."""
        with torch.autocast(x.device.type, enabled=False):
            pixels = x.flatten(2).to(self.anchors.dtype)
            precision = self.scales.sigmoid().square().reciprocal()
            cross = precision * self.anchors
            constant = (cross * self.anchors).sum(1, keepdim=True)
            distance = matmul(precision, pixels.square()) - 2 * matmul(cross, pixels) + constant
            return [part.softmax(1) for part in torch.split(-0.5 * distance, self.vertices, dim=1)]

    def gather(self, x: Tensor, assignment: Tensor) -> Tensor:
        """The vertices z of all units, (B, sum of vertices, channels), rows of length one."""
        with torch.autocast(x.device.type, enabled=False):
            pixels = x.flatten(2).to(self.anchors.dtype)
            mean = matmul(assignment, pixels.mT) / assignment.sum(-1, keepdim=True).clamp_min(1e-6)
            # k-means may put an anchor on its mean: that vertex has no direction, and no endless gradient either
            return F.normalize((mean - self.anchors) / self.scales.sigmoid(), dim=-1, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.placed:
            self.place(x)
        assignments = self.assign(x)
        assignment = torch.cat(assignments, dim=1)
        units = torch.split(self.gather(x, assignment), self.vertices, dim=1)
        own, *others = torch.split(self.fuse.conv.weight, [x.shape[1], *[self.width] * len(units)], dim=1)
        spread = []
        for z, reason, norm, weight in zip(units, self.reason, self.norm, others, strict=True):
            if self.graph:
                node = norm(reason(z @ z.transpose(1, 2) @ z).transpose(1, 2)).relu()
            else:
                node = reason(z).transpose(1, 2)
            spread.append(weight.flatten(1) @ node)
        y = matmul(torch.cat(spread, dim=2), assignment)
        return self.fuse.finish(conv1x1(x, own) + y.view_as(x))
