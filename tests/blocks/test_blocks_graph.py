"""Properties of the graph blocks whose papers left no code, and of what the goldens cannot see."""

import math

import pytest
import torch
from torch import Tensor

from lightning_app.blocks.beyond_grids import GraphUnits
from lightning_app.blocks.carafe import CARAFEUpsample
from lightning_app.blocks.cgnl import CompactNonLocal
from lightning_app.blocks.dgmn import sample
from lightning_app.blocks.efficient_attention import EfficientSelfAttention
from lightning_app.blocks.glore import GlobalReasoning
from lightning_app.blocks.latentgnn import LatentGraph
from lightning_app.blocks.local_relation import LocalRelationLayer, local_relation
from lightning_app.blocks.polarized import PolarizedSelfAttention
from lightning_app.blocks.sgr import SymbolicReasoning
from lightning_app.util.errors import InputError

DOUBLE = torch.float64


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 16, 5, 7, dtype=DOUBLE)


@pytest.mark.parametrize("mapping", ["bilinear", "additive"])
def test_sgr_and_graph_units_see_a_set_of_positions(x: Tensor, mapping: str) -> None:
    """Shuffled positions give the same answer, shuffled."""
    order = torch.randperm(35)
    for block in (SymbolicReasoning(16, nodes=6, mapping=mapping), GraphUnits(16)):
        block = block.double().eval()
        shuffled = x.flatten(2)[:, :, order].view_as(x)
        torch.testing.assert_close(block(shuffled), block(x).flatten(2)[:, :, order].view_as(x))


def test_sgr_maps_back_by_weights_of_every_position(x: Tensor) -> None:
    """Each position's weights sum to one over the nodes, differ between positions, and the map has full rank."""
    block = SymbolicReasoning(16, nodes=6).double()
    back = block.back(10 * block.nodes(x), x)
    torch.testing.assert_close(back.sum(1), torch.ones(2, 35, dtype=DOUBLE))
    assert torch.linalg.matrix_rank(back, rtol=1e-6).tolist() == [6, 6]


def test_sgr_additive_map_is_the_papers_and_has_rank_one(x: Tensor) -> None:
    """softmax over positions of u h_n + w x_i: whatever u is, the node's term cancels."""
    block = SymbolicReasoning(16, nodes=6, mapping="additive").double()
    assert block.focus is not None
    nodes = block.nodes(x)
    u = torch.randn(16, dtype=DOUBLE)
    paper = ((nodes @ u).unsqueeze(2) + block.focus(x).flatten(2)).softmax(2)
    back = block.back(nodes, x)
    torch.testing.assert_close(back, paper)
    assert torch.linalg.matrix_rank(back, rtol=1e-9).tolist() == [1, 1]


def test_sgr_normalises_its_prior() -> None:
    """A^ = D^-1/2 (A + I) D^-1/2; without a prior the nodes do not speak to each other."""
    block = SymbolicReasoning(4, adjacency=[[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(block.adjacency, torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]))
    torch.testing.assert_close(SymbolicReasoning(4, nodes=3).adjacency, torch.eye(3))


def test_sgr_prior_travels_with_the_weights(x: Tensor) -> None:
    source = SymbolicReasoning(16, adjacency=torch.rand(4, 4), embeddings=torch.rand(4, 7)).double()
    target = SymbolicReasoning(16, adjacency=torch.zeros(4, 4), embeddings=torch.zeros(4, 7)).double()
    target.load_state_dict(source.state_dict())
    assert torch.equal(target(x), source(x))


@pytest.mark.parametrize(
    "arguments",
    [
        {"nodes": 4, "adjacency": torch.zeros(3, 3)},
        {"adjacency": torch.zeros(3, 3), "embeddings": torch.zeros(2, 5)},
        {"adjacency": torch.zeros(3, 2)},
        {"adjacency": [[0, -1], [-1, 0]]},
    ],
)
def test_sgr_refuses_a_prior_that_does_not_fit(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match="adjacency"):
        SymbolicReasoning(8, **arguments)


def test_graph_units_rows(x: Tensor) -> None:
    """Each unit's assignment sums to one over its vertices; vertices have length one."""
    block = GraphUnits(16, vertices=(2, 4)).double()
    assignments = block.assign(x)
    assert [a.shape[1] for a in assignments] == [2, 4]
    for a in assignments:
        torch.testing.assert_close(a.sum(1), torch.ones(2, 35, dtype=DOUBLE))
    z = block.gather(x, torch.cat(assignments, dim=1))
    torch.testing.assert_close(z.norm(dim=2), torch.ones(2, 6, dtype=DOUBLE))


def test_graph_units_start_on_the_clusters_of_the_first_batch() -> None:
    torch.manual_seed(0)
    centres = torch.eye(2, 8) * 4
    labels = torch.randint(2, (4, 6, 6))
    x = centres[labels].movedim(-1, 1) + 0.1 * torch.randn(4, 8, 6, 6)
    block = GraphUnits(8, vertices=(2,)).train()
    block(x)
    distance = torch.cdist(block.anchors, centres)
    assert distance.min(0).values.max() < 0.1
    assert block.scales.sigmoid().mean().item() == pytest.approx(0.1, abs=0.03)
    (assignment,) = block.assign(x)
    nearest = distance.argmin(0)
    assert torch.equal(assignment.argmax(1).view_as(labels), nearest[labels])


def test_graph_units_keep_anchors_that_were_loaded_or_trained(x: Tensor) -> None:
    trained = GraphUnits(16).double().train()
    trained(x)
    anchors = trained.anchors.clone()
    trained(x + 1)
    resumed = GraphUnits(16).double().train()
    resumed.load_state_dict(trained.state_dict())
    resumed(x + 1)
    assert torch.equal(trained.anchors, anchors)
    assert torch.equal(resumed.anchors, anchors)


def test_graph_units_survive_a_vertex_nobody_chooses(x: Tensor) -> None:
    block = GraphUnits(16, vertices=(3,)).double().eval()
    with torch.no_grad():
        block.anchors[0] = 1e4
    x.requires_grad_()
    block(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    "block", [GlobalReasoning(16), CompactNonLocal(16), LatentGraph(16)], ids=["glore", "cgnl", "latentgnn"]
)
def test_starts_as_the_identity(block: torch.nn.Module, x: Tensor) -> None:
    assert torch.equal(block.double()(x), x)


def test_cgnl_rbf_is_a_gaussian(x: Tensor) -> None:
    """beta sum_k (2 gamma t p)^k / k! with beta = exp(-2 gamma) is exp(-2 gamma (1 - t p))."""
    block = CompactNonLocal(16, groups=1, kernel="rbf", order=6).double()
    seen: list[Tensor] = []
    block.z.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    block(50 * x)
    t, p, g = (conv(50 * x).flatten(1) for conv in (block.t, block.p, block.g))
    kernel = torch.exp(-2e-4 * (1 - t.unsqueeze(2) * p.unsqueeze(1)))
    torch.testing.assert_close(seen[0].flatten(1), (kernel @ g.unsqueeze(2)).squeeze(2))


def test_glore_normalised_does_not_depend_on_the_size(x: Tensor) -> None:
    block = GlobalReasoning(16).double().eval()
    torch.nn.init.ones_(block.norm.weight)
    tiled = x.repeat(1, 1, 2, 3)
    torch.testing.assert_close(block(tiled), block(x).repeat(1, 1, 2, 3))


def test_deformable_samples_without_offsets_are_the_unfolded_map(x: Tensor) -> None:
    offset = torch.zeros(2, 18, 5, 7, dtype=DOUBLE)
    unfolded = torch.nn.functional.unfold(x, 3, padding=2, dilation=2).view(2, 16, 9, 5, 7)
    torch.testing.assert_close(sample(x, offset, 2), unfolded)


def test_local_relation_with_stride_reads_every_other_position(x: Tensor) -> None:
    query, key = torch.randn(2, 2, 4, 5, 7, dtype=DOUBLE)
    query, key, value, position = query[:, :2], key[:, :2], x, torch.randn(2, 3, 3, dtype=DOUBLE)
    full = local_relation(query, key, value, position)
    strided = local_relation(query[:, :, ::2, ::2], key, value, position, stride=2)
    torch.testing.assert_close(strided, full[:, :, ::2, ::2])


def test_local_relation_of_equal_keys_is_a_mean_of_the_window() -> None:
    x = torch.ones(1, 8, 4, 4)
    position = torch.zeros(1, 3, 3)
    out = local_relation(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), x, position)
    torch.testing.assert_close(out, x)


def test_carafe_keeps_a_constant_inside_and_drops_taps_outside() -> None:
    """The kernels sum to one; at the border the taps outside the image are missing, not shared out."""
    up = CARAFEUpsample(4)
    torch.nn.init.zeros_(up.encoder.weight)
    out = up(torch.ones(1, 4, 6, 6))
    torch.testing.assert_close(out[..., 4:8, 4:8], torch.ones(1, 4, 4, 4))
    torch.testing.assert_close(out[..., 0, 0], torch.full((1, 4), 9 / 25))


def test_polarized_official_spatial_gate_is_almost_constant() -> None:
    """sigmoid of a softmax over all positions lies in (0.5, 0.731] and near 0.5: the released parallel form."""
    torch.manual_seed(0)
    x = torch.randn(1, 16, 32, 32)
    official = PolarizedSelfAttention(16).spatial_gate(x)
    paper = PolarizedSelfAttention(16, form="paper").spatial_gate(x)
    assert official.min() >= 0.5
    assert official.max() <= 1 / (1 + math.exp(-1)) + 1e-6
    assert official.std() < 0.1 * paper.std()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EfficientSelfAttention(16, heads=3), "heads=3"),
        (lambda: CompactNonLocal(12, groups=8), "groups=8"),
        (lambda: LocalRelationLayer(12), "group_channels=8"),
        (lambda: LocalRelationLayer(16, similarity="dot"), '"dot"'),
        (lambda: CARAFEUpsample(10, groups=4), "groups=4"),
    ],
)
def test_bad_arguments_say_which(build, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
