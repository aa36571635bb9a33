"""Forms of blocks that leave a step of their paper out, or take it several times: what docs/claims.md compares."""

from typing import Any

import pytest
import torch
from small import build, image
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks.ann import APNB
from lightning_app.blocks.beyond_grids import GraphUnits
from lightning_app.blocks.emanet import EMAU
from lightning_app.blocks.glore import GlobalReasoning
from lightning_app.blocks.latentgnn import LatentGraph
from lightning_app.blocks.sgr import SymbolicReasoning
from lightning_app.heads.one_block import OneBlock
from lightning_app.registry import BLOCKS
from lightning_app.util.errors import InputError

WITHOUT_GRAPH = (GlobalReasoning, SymbolicReasoning, GraphUnits, LatentGraph)


def attended(stage: nn.Module, x: Tensor) -> Tensor:
    """A_s of one attention of ANN's, as a map."""
    weights, values = stage(x, x)
    result: Tensor = (values @ weights).view(x.shape[0], -1, *x.shape[2:])
    return result


@pytest.mark.parametrize("stages", [1, 2])
def test_an_attention_for_each_scale_side_by_side(stages: int) -> None:
    block, x = build(APNB, scales=(1, 3), ways=True, stages=stages), image()
    one, two = (sum(attended(block.stages[2 * n + way], x) for n in range(1, stages)) for way in range(2))
    ways = [attended(block.stages[0], x) + one, attended(block.stages[1], x) + two]
    torch.testing.assert_close(block(x), block.fuse(torch.cat([*ways, x], dim=1)))


def test_one_scale_is_one_way() -> None:
    one, other = (build(APNB, scales=(3,), ways=ways) for ways in (False, True))
    assert torch.equal(one(image()), other(image()))


@pytest.mark.parametrize("cls", WITHOUT_GRAPH, ids=lambda cls: cls.__name__)
def test_the_graph_step_can_be_left_out(cls: Any) -> None:
    """Same weights where both have them, another result, and every one that is left learns."""
    whole, plain = (build(cls, graph=graph) for graph in (True, False))
    known = whole.state_dict()
    plain.load_state_dict({name: known[name] for name in plain.state_dict()})
    x = image()
    assert plain(x).shape == x.shape
    assert not torch.allclose(plain(x), whole(x))
    (plain.train()(x) * torch.randn_like(x)).sum().backward()
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_without_the_graph_step_nodes_are_handed_back_as_gathered() -> None:
    block, x = build(GlobalReasoning, graph=False), image()
    projection, state = block.projection(x).flatten(2), block.state(x).flatten(2)
    nodes = state @ projection.mT / projection.shape[2]
    expected = x + block.norm(block.extend((nodes @ projection).view(2, -1, *x.shape[2:])))
    torch.testing.assert_close(block(x), expected)


def test_learned_bases_take_the_gradient_and_follow_no_batch() -> None:
    block, x = build(EMAU, bases=4, stages=2, learned=True).train(), image().requires_grad_()
    before = block.bases.detach().clone()
    (block(x) * torch.randn_like(x)).sum().backward()
    assert torch.equal(block.bases, before)
    assert all(each.grad.any() for each in block.parameters())
    moving = build(EMAU, bases=4, stages=2).train()
    moving(x)
    assert "bases" not in dict(moving.named_parameters())


def test_learned_bases_compute_what_moving_ones_do() -> None:
    learned, moving = (build(EMAU, bases=4, learned=way) for way in (True, False))
    moving.load_state_dict(learned.state_dict())
    torch.testing.assert_close(learned(image()), moving(image()))


@pytest.mark.parametrize("slug", ["se", "cbam", "eca", "gcnet"])
def test_any_block_stands_in_the_same_place(slug: str) -> None:
    head = build(OneBlock, (8, 16), 3, block=slug, arguments={"reduction": 4} if slug == "se" else {})
    assert isinstance(head.block, BLOCKS[slug].cls)
    level = torch.randn(2, 16, 5, 7)
    x = head.reduce(level)
    y = head.project(head.block(x))
    torch.testing.assert_close(head([level]), head.classifier(head.fuse(torch.cat([level, y], dim=1))))


def test_an_unknown_argument_of_a_block_is_named() -> None:
    with pytest.raises(InputError, match=r'The block se has no argument "reductoin"\. Did you mean "reduction"'):
        OneBlock((8,), 3, block="se", arguments={"reductoin": 4})


def test_without_norm_there_is_nothing_to_follow() -> None:
    """GraphUnits without the step is linear in what it gathered: no batch norm over vertices is left."""
    block = build(GraphUnits, graph=False)
    assert not any(isinstance(each, nn.BatchNorm1d) for each in block.modules())
    assert F.relu(block(image())).equal(block(image()))  # the fusing convolution ends in a ReLU
