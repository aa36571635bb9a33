"""Layers of any module by faster kernels: the same numbers and gradients."""

import pytest
import torch
from torch import Tensor, nn

from lightning_app.heads.fcn import FCN
from lightning_app.kernels import fast, layers, products
from lightning_app.kernels.half import ends_in_float32, evaluated_in_float32
from lightning_app.kernels.layers import fast_layers
from lightning_app.tasks.semantic.windows import sliding_window


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "FASTER", products.BUILT)
    monkeypatch.setattr(products, "WORTH", 0)
    monkeypatch.setattr(products, "NARROW", 0)
    monkeypatch.setattr(layers, "NARROW", 0)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 4, 1),
        nn.Conv2d(6, 4, 1, stride=2, bias=False),
        nn.Conv2d(6, 4, 1, stride=(1, 3)),
        nn.Conv2d(6, 4, 1, padding=1),
        nn.Conv2d(6, 4, 1, groups=2),
        nn.Conv2d(6, 4, 3, padding="same"),
    ],
    ids=str,
)
def test_a_convolution_is_the_same(layer: nn.Conv2d, layout: torch.memory_format) -> None:
    x = torch.randn(2, 6, 7, 8).contiguous(memory_format=layout)
    _same(layer, x)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("shape", [(5, 6), (2, 5, 6)])
def test_a_linear_layer_is_the_same(shape: tuple[int, ...]) -> None:
    _same(nn.Linear(6, 4), torch.randn(shape))


@pytest.mark.usefixtures("always")
@pytest.mark.skipif(not products.BUILT, reason="this PyTorch has no oneDNN")
def test_pointwise_layers_of_others_are_products_of_onednn() -> None:
    network = nn.Sequential(nn.Conv2d(6, 4, 1, stride=2), nn.Flatten(), nn.Linear(4 * 4 * 4, 3))
    x = torch.randn(1, 6, 8, 8)
    with torch.profiler.profile() as profile, torch.no_grad(), fast_layers(x):
        network(x)
    (calls,) = [event.count for event in profile.key_averages() if event.key.endswith("_linear_pointwise")]
    assert calls == 2


class Judge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    @evaluated_in_float32
    def forward(self, levels: list[Tensor]) -> Tensor:
        scores: Tensor = self.layer(levels[0])
        return scores


def test_what_is_ranked_keeps_its_bits_in_evaluation_alone() -> None:
    judge, level = Judge().eval(), torch.randn(5, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        careful, learned = judge([level]), judge.train()([level])
    assert torch.equal(careful, judge.layer(level.float()))
    assert learned.dtype == torch.bfloat16
    assert judge.eval()([level.float()]).dtype == torch.float32
    with pytest.raises(RuntimeError, match="dtype"):  # without autocast nothing is recast behind a person's back
        judge([level])


def test_the_classes_of_a_pixel_lie_together_where_nothing_is_learned() -> None:
    head, features = FCN([4], 6, channels=4).eval(), [torch.randn(2, 4, 5, 7)]
    learned = head.at(features, (20, 29))
    with fast(False), torch.no_grad():
        plain = head.at(features, (20, 29))
    with torch.no_grad():
        seen = head.at(features, (20, 29))
    assert [x.stride(1) for x in (learned, plain, seen)] == [20 * 29, 20 * 29, 1]
    torch.testing.assert_close(seen, plain)
    assert torch.equal(seen.argmax(1), plain.argmax(1))
    images = torch.randn(1, 4, 9, 9)
    with torch.no_grad():
        summed = sliding_window(lambda crop: head.at([crop], (6, 6)), images, (6, 6))
    with fast(False), torch.no_grad():
        torch.testing.assert_close(summed, sliding_window(lambda crop: head.at([crop], (6, 6)), images, (6, 6)))
    assert summed.stride(1) == 1


def test_both_ends_keep_their_bits_and_what_is_between_is_fast() -> None:
    fine, coarse, last = (nn.Conv2d(width, 3, 3, stride=2, padding=1) for width in (3, 3, 3))
    images = torch.randn(1, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        with ends_in_float32(images, 2, last):
            first = fine(images)
            second = coarse(first)
            third = coarse(second)
            maps = last(third)
        assert torch.is_autocast_enabled("cpu")
        assert coarse(first).dtype == torch.bfloat16
    assert torch.equal(first, fine(images))
    assert second.dtype == torch.float32  # the first small one of all: what comes behind it is fast
    assert third.dtype == torch.bfloat16
    assert torch.equal(maps, last(third.float()))
    with ends_in_float32(images, 2, last):
        fine(images)
    assert not torch.is_autocast_enabled("cpu")  # nobody who did not ask for half precision gets it


def _same(layer: nn.Module, x: Tensor) -> None:
    x.requires_grad_()
    inputs = [x, *layer.parameters()]
    plain = layer(x)
    weight = torch.randn_like(plain)
    with fast_layers(x):
        ours = layer(x)
        gradients = torch.autograd.grad((ours * weight).sum(), inputs)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(gradients, torch.autograd.grad((plain * weight).sum(), inputs))
