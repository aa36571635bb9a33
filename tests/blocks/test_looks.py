"""What a block says of where a position looks, against what the block computes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_app.blocks._looks import Look, by_parts, shrunk
from lightning_app.blocks.a2net import DoubleAttention
from lightning_app.blocks.ann import AFNB, APNB
from lightning_app.blocks.ccnet import CrissCrossAttention
from lightning_app.blocks.danet import PositionAttention
from lightning_app.blocks.dnlnet import DisentangledNonLocalBlock
from lightning_app.blocks.efficient_attention import EfficientSelfAttention
from lightning_app.blocks.emanet import EMAU
from lightning_app.blocks.gcnet import GlobalContext
from lightning_app.blocks.glore import GlobalReasoning
from lightning_app.blocks.isanet import InterlacedAttention
from lightning_app.blocks.nonlocal_net import MODES, NonLocalBlock
from lightning_app.blocks.ocnet import GridContextPooling, ObjectContextPooling
from lightning_app.blocks.ocrnet import ObjectContext
from lightning_app.blocks.polarized import PolarizedSelfAttention
from lightning_app.blocks.psanet import PointwiseSpatialAttention

C, SIZE, AT = 8, (6, 8), (2, 5)
OC: dict[str, Any] = {"key_channels": 4, "value_channels": C, "out_channels": C, "openseg": True}

SHARES: dict[str, tuple[nn.Module, int]] = {  # and how many maps it says
    "nonlocal": (NonLocalBlock(C), 1),
    "gaussian": (NonLocalBlock(C, mode="gaussian"), 1),
    "mean_shift": (NonLocalBlock(C, mode="mean_shift"), 1),
    "dnl": (DisentangledNonLocalBlock(C), 2),
    "ccnet": (CrissCrossAttention(C, reduction=2), 3),
    "ccnet, one pass": (CrissCrossAttention(C, recurrence=1), 1),
    "danet": (PositionAttention(C), 1),
    "psanet": (PointwiseSpatialAttention(C, mask_size=(11, 15), shrink_factor=2), 2),
    "apnb": (APNB(C, scales=(1, 3)), 4),
    "emanet": (EMAU(C, 5), 4),
    "ocr": (ObjectContext(C, regions=5), 4),
    "a2net": (DoubleAttention(C, width=4), 4),
    "efficient_attention": (EfficientSelfAttention(C, key_channels=4, heads=2), 4),
    "gcnet": (GlobalContext(C), 1),
    "gcnet, mean": (GlobalContext(C, pooling="avg"), 1),
    "isanet": (InterlacedAttention(C, C, 4, 4, (2, 4)), 2),
    "ocnet": (ObjectContextPooling(C, size=1, **OC), 1),
    "ocnet, pooled": (ObjectContextPooling(C, size=2, **OC), 1),
    "ocnet, grid": (GridContextPooling(C, size=3, **OC), 1),
}


def randomised(module: nn.Module) -> Any:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.eval().double()


def image() -> Tensor:
    return torch.randn(1, C, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", SHARES)
@torch.no_grad()
def test_shares_sum_to_one(name: str) -> None:
    module, count = SHARES[name]
    looks = randomised(module).looks(AT, image())
    assert len(looks) == count
    for look in looks:
        assert (look.kind, look.weights.ndim) == ("share", 2)
        assert look.weights.min() >= 0
        assert look.weights.sum().item() == pytest.approx(1)


def applied(look: Look, value: Tensor) -> Tensor:
    """sum_j w_j v_j of one image: (1, e, H, W) -> (e,)."""
    return torch.einsum("hw,ehw->e", look.weights, value[0])


def of(x: Tensor) -> Tensor:
    return x[0, :, AT[0], AT[1]]


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "mean_shift"])
@torch.no_grad()
def test_nonlocal_weights_are_those_of_the_block(mode: str) -> None:
    x, block = image(), randomised(NonLocalBlock(C, mode=mode))
    torch.testing.assert_close(applied(block.looks(AT, x)[0], block.g(x)), of(block.aggregate(x)))
    x, block = image(), randomised(DisentangledNonLocalBlock(C, mode=mode))
    pairwise, unary = block.looks(AT, x)
    torch.testing.assert_close(applied(pairwise, block.g(x)) + applied(unary, block.g(x)), of(block.aggregate(x)))


@torch.no_grad()
def test_weights_of_other_pairs_are_those_of_the_block() -> None:
    x = image()
    block = randomised(NonLocalBlock(C, mode="mean_shift"))
    torch.testing.assert_close(applied(block.looks(AT, x)[0], x), of(block(x)))
    block = randomised(PositionAttention(C))
    torch.testing.assert_close(block.gamma * applied(block.looks(AT, x)[0], block.value(x)), of(block(x) - x))
    block = randomised(ObjectContextPooling(C, size=1, **OC))
    expected = of(block.attention(x))
    torch.testing.assert_close(applied(block.looks(AT, x)[0], block.attention.value(x)), expected)


@torch.no_grad()
def test_criss_cross_looks_along_its_cross_and_with_two_passes_everywhere() -> None:
    x, block = image(), randomised(CrissCrossAttention(C, reduction=2))
    first, second, both = block.looks(AT, x)
    cross = torch.zeros(SIZE, dtype=torch.bool)
    cross[AT[0]], cross[:, AT[1]] = True, True
    for look in (first, second):
        assert torch.equal(look.weights > 0, cross)
    assert (both.weights > 0).all()
    one = randomised(CrissCrossAttention(C, recurrence=1, reduction=2))
    torch.testing.assert_close(one.gamma * applied(one.looks(AT, x)[0], one.value(x)), of(one(x) - x))


@pytest.mark.parametrize("shrink_factor", [1, 2])
@torch.no_grad()
def test_psanet_collects_and_is_handed_what_its_weights_say(shrink_factor: int) -> None:
    x = image()
    block = randomised(PointwiseSpatialAttention(C, mask_size=(5, 7), shrink_factor=shrink_factor))
    size, corners = block._shrunken(x)
    row, column = shrunk(AT, SIZE, size, align_corners=corners)
    for number, look in enumerate(block.looks(AT, x)):
        f = nn.functional.interpolate(block.reduce[number](x), size, mode="bilinear", align_corners=corners)
        y = block._aggregate(block.directions[number], f, block.attention[number])
        torch.testing.assert_close(applied(look, f), y[0, :, row, column])


@torch.no_grad()
def test_parts_are_those_of_the_block() -> None:
    x = image()
    block = randomised(DoubleAttention(C, width=4))
    through = block.looks(AT, x)[0]
    torch.testing.assert_close(
        block.expand(applied(through, block.feature(x)).view(1, -1, 1, 1)).flatten(), of(block(x) - x)
    )
    block = randomised(EfficientSelfAttention(C, key_channels=4))
    value = applied(block.looks(AT, x)[0], block.value(x)).view(1, -1, 1, 1)
    torch.testing.assert_close(block.reproject(value).flatten(), of(block(x) - x))
    block = randomised(APNB(C, scales=(1, 3)))
    weights, values = block.stages[0](x, x)
    context = block.stages[0].out(applied(block.looks(AT, x)[0], block.stages[0].value(x)).view(1, -1, 1, 1))
    torch.testing.assert_close(context.flatten(), (values @ weights).view(1, C, *SIZE)[0, :, AT[0], AT[1]])
    block = randomised(GlobalReasoning(C, nodes=3))
    projection = block.projection(x)[0]
    through = block.looks(AT, x)[0]
    assert through.kind == "signed"
    torch.testing.assert_close(through.weights, torch.einsum("k,khw->hw", of(projection[None]), projection) / 48)


@torch.no_grad()
def test_a_low_level_of_another_size_is_looked_at_on_its_own_grid() -> None:
    low = torch.randn(1, 6, 12, 16, dtype=torch.float64)
    block = randomised(AFNB(6, C, key_channels=4, value_channels=4, scales=(1, 4)))
    through = block.looks(AT, low, image())[0]
    assert through.weights.shape == (12, 16)
    assert through.weights.sum().item() == pytest.approx(1)


@torch.no_grad()
def test_gates_are_those_of_the_block() -> None:
    x = image()
    for mode in ("parallel", "sequential"):
        block = randomised(PolarizedSelfAttention(C, mode=mode))
        gathered, gate = block.looks(AT, x)
        channel = block.channel_gate(x)
        context = block.channel_up(applied(gathered, block.channel_value(x)).view(1, -1, 1, 1)).sigmoid()
        torch.testing.assert_close(context, channel)
        out = x * channel + x * gate.weights if mode == "parallel" else x * channel * gate.weights
        torch.testing.assert_close(out, block(x))


@torch.no_grad()
def test_regions_may_be_given_and_padding_of_cells_is_left_out() -> None:
    x, block = image(), randomised(ObjectContext(C, regions=0))
    through, *parts = block.looks(AT, x, torch.randn(1, 2, *SIZE, dtype=torch.float64))
    assert [part.name.partition(",")[0] for part in parts] in (["region 0", "region 1"], ["region 1", "region 0"])
    assert through.weights.sum().item() == pytest.approx(1)
    near, far = randomised(InterlacedAttention(C, C, 4, 4, (4, 3))).looks(AT, x)
    assert near.weights.shape == far.weights.shape == SIZE
    assert 0 < far.weights.sum() < 1
    assert (near.weights > 0).sum() <= 12


def test_the_parts_that_are_asked_most() -> None:
    looks = by_parts("base", torch.tensor([0.1, 0.6, 0.3]), torch.eye(3).view(3, 1, 3), most=2)
    assert [look.name for look in looks] == ["through 3 bases", "base 1, asked for 60 %", "base 2, asked for 30 %"]
    torch.testing.assert_close(looks[0].weights, torch.tensor([[0.1, 0.6, 0.3]]))
