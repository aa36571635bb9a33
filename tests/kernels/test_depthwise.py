"""Depthwise convolutions with a backward pass of their own: the same gradients, in whichever module they stand."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app import kernels
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.kernels import depthwise

LAYOUTS = {"rows": torch.contiguous_format, "channels_last": torch.channels_last}
CASES = [  # channels, outputs, groups, (height, width), (k, l), stride, padding, dilation
    (6, 6, 6, (9, 11), (5, 5), (1, 1), (2, 2), (1, 1)),
    (6, 6, 6, (9, 12), (5, 5), (2, 2), (2, 2), (1, 1)),
    (6, 6, 6, (12, 9), (5, 5), (2, 2), (0, 0), (1, 1)),
    (4, 4, 4, (9, 11), (3, 3), (1, 1), (2, 2), (2, 2)),
    (4, 4, 4, (10, 13), (5, 5), (1, 1), (8, 8), (4, 4)),
    (4, 4, 4, (13, 14), (3, 3), (1, 1), (0, 0), (3, 3)),
    (4, 4, 4, (9, 11), (3, 3), (2, 2), (2, 2), (2, 2)),
    (4, 4, 4, (9, 11), (3, 3), (1, 1), (5, 5), (2, 2)),
    (3, 3, 3, (8, 20), (2, 7), (1, 2), (1, 3), (1, 1)),
    (3, 3, 3, (8, 20), (3, 4), (1, 1), (1, 3), (1, 3)),
    (4, 4, 4, (10, 11), (3, 3), (2, 2), (1, 1), (1, 1)),
    (3, 3, 3, (2, 1), (7, 7), (1, 1), (3, 3), (1, 1)),
    (4, 8, 4, (9, 11), (3, 3), (1, 1), (2, 2), (2, 2)),
    (6, 4, 2, (9, 11), (3, 3), (1, 1), (2, 2), (2, 2)),
]


def gradients(convolve: Callable[..., Tensor], tensors: tuple[Tensor, ...], geometry: tuple[Any, ...]) -> list[Tensor]:
    """The output, and gradients of input, weight and bias."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    y = convolve(*leaves, *geometry)
    grad = torch.linspace(-9, 9, y.numel()).sin().bfloat16().to(y.dtype).view(y.shape)
    return [y, *torch.autograd.grad(y, leaves, grad)]


def tensors(case: tuple[Any, ...], dtype: torch.dtype, layout: str) -> tuple[Tensor, Tensor, Tensor]:
    channels, outputs, groups, size, kernel, *_ = case
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, *size, generator=generator).to(dtype, memory_format=LAYOUTS[layout])
    weight = torch.randn(outputs, channels // groups, *kernel, generator=generator)
    return x, weight.to(dtype), torch.randn(outputs, generator=generator).to(dtype)


def geometry(case: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*case[5:], case[2])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_autograd(case: tuple[Any, ...], layout: str) -> None:
    """In fp64 to the last digits; in fp32 and bf16 as near as their own rounding allows."""
    for dtype, atol in ((torch.float64, 1e-13), (torch.float32, 2e-6), (torch.bfloat16, 8e-3)):
        inputs = tensors(case, dtype, layout)
        expected = gradients(F.conv2d, tuple(tensor.double() for tensor in inputs), geometry(case))
        for ours, exact in zip(gradients(depthwise._Convolution.apply, inputs, geometry(case)), expected, strict=True):
            assert ours.dtype == dtype
            assert (ours - exact).abs().max() <= atol * exact.abs().max()


@pytest.mark.parametrize("case", [CASES[1], CASES[3], CASES[9], CASES[11]], ids=str)
def test_derivatives_are_those_of_the_function_twice(case: tuple[Any, ...]) -> None:
    inputs = tuple(tensor.requires_grad_() for tensor in tensors(case, torch.float64, "rows"))
    x, weight, bias = inputs[0][:1, ..., :10].detach().requires_grad_(), *inputs[1:]

    def convolve(*tensors: Tensor) -> Tensor:
        y: Tensor = depthwise._Convolution.apply(*tensors, *geometry(case))
        return y

    assert torch.autograd.gradcheck(convolve, (x, weight, bias))
    assert torch.autograd.gradgradcheck(convolve, (x, weight, bias))


def own_backward(function: Callable[[], Tensor]) -> bool:
    """Whether the backward pass of what the function gives holds one of ours."""
    seen, nodes = set(), [function().grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [before for before, _ in node.next_functions]
    return any("_Convolution" in type(node).__name__ for node in seen)


def test_is_chosen_where_pytorch_is_slow() -> None:
    x, narrow, wide = torch.randn(1, 8, 9, 9), torch.randn(8, 1, 3, 3), torch.randn(8, 1, 5, 5)

    def chosen(x: Tensor, weight: Tensor, **options: Any) -> bool:
        weight = weight.detach().requires_grad_()
        return own_backward(lambda: depthwise.conv2d(x, weight, **{"groups": 8} | options))

    assert chosen(x, wide)
    assert chosen(x, narrow, dilation=2)
    assert chosen(x.bfloat16(), narrow.bfloat16(), stride=2)
    assert chosen(x.bfloat16(), torch.randn(8, 4, 3, 3).bfloat16(), dilation=2, groups=2)  # where PyTorch's is wrong
    assert not chosen(x, narrow)
    assert not chosen(x, narrow, stride=2)
    assert not chosen(x, torch.randn(8, 4, 5, 5), groups=2)
    assert not chosen(x, torch.randn(8, 8, 5, 5), groups=1)
    assert not chosen(x, narrow, dilation=2, padding="same")
    assert not chosen(x.double(), wide.double())
    with kernels.fast(False):
        assert not chosen(x, wide)
    with torch.autocast("cpu", torch.bfloat16):
        assert chosen(x, narrow, stride=2)


@pytest.fixture(scope="module")
def backbone() -> TimmBackbone:
    torch.manual_seed(0)
    model = TimmBackbone("tf_efficientnet_lite0", output_stride=16, out_indices=[2, 4])
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    return model


def train(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Gradients of the images and of every weight in a step of training."""
    images = images.clone().requires_grad_()
    loss = torch.stack([level.square().mean() for level in model(images)]).sum()
    return list(torch.autograd.grad(loss, [images, *model.parameters()]))


def test_a_backbone_trains_as_it_does_in_the_plain_form(
    backbone: TimmBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every convolution in groups, in fp64."""
    monkeypatch.setattr(depthwise, "is_slow", lambda *_: True)
    model, images = copy.deepcopy(backbone).double(), torch.randn(2, 3, 63, 81).double()
    assert own_backward(lambda: model(images)[-1])
    ours = train(model, images)
    with kernels.fast(False):
        assert not own_backward(lambda: model(images)[-1])
        plain = train(model, images)
    for gradient, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-13)


def test_modules_and_weights_of_a_backbone_are_timms(backbone: TimmBackbone) -> None:
    import timm

    theirs = timm.create_model("tf_efficientnet_lite0", features_only=True, output_stride=16, out_indices=(2, 4))
    assert [type(module) for module in backbone.model.modules()] == [type(module) for module in theirs.modules()]
    assert backbone.model.state_dict().keys() == theirs.state_dict().keys()


def test_bf16_channels_last_gradients_of_dilated_groups_are_finite_and_right() -> None:
    """PyTorch 2.14 gives what was in memory."""
    for case in (CASES[3], CASES[-1]):
        inputs = tensors(case, torch.bfloat16, "channels_last")
        exact = gradients(F.conv2d, tuple(tensor.double() for tensor in inputs), geometry(case))
        for ours, expected in zip(gradients(depthwise.conv2d, inputs, geometry(case)), exact, strict=True):
            assert (ours - expected).abs().max() <= 8e-3 * expected.abs().max()


def test_exported_graphs_hold_the_plain_form(backbone: TimmBackbone) -> None:
    images = torch.randn(1, 3, 64, 64)
    exported = torch.export.export(copy.deepcopy(backbone), (images,), strict=False)
    assert "_Convolution" not in exported.graph_module.code
    assert exported.graph_module.code.count("conv2d") > 40
