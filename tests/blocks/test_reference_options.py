"""Options of the reference implementations that no golden covers: each is honoured, or refused in one line."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from goldens import official_block
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks.latentgnn import LatentGraph
from lightning_app.blocks.ocnet import BaseOC
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.convert import build_head
from lightning_app.weights.openmmlab.heads import new_head


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A state dict of these shapes; variances are positive."""
    generator = torch.Generator().manual_seed(0)
    draw: dict[bool, Callable[[tuple[int, ...]], Tensor]] = {
        True: lambda shape: torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5,
        False: lambda shape: torch.randn(shape, generator=generator, dtype=torch.float64),
    }
    return {name: draw["var" in name](shape) for name, shape in shapes.items()}


def conv_bn(conv: str, bn: str, shape: tuple[int, ...], bias: bool = False) -> dict[str, tuple[int, ...]]:
    """Shapes of a convolution and its batch norm."""
    shapes: dict[str, tuple[int, ...]] = {f"{conv}.weight": shape} | ({f"{conv}.bias": shape[:1]} if bias else {})
    return (
        shapes
        | {f"{bn}.{name}": shape[:1] for name in ("weight", "bias", "running_mean", "running_var")}
        | {f"{bn}.num_batches_tracked": ()}
    )


def norm(x: Tensor, state: dict[str, Tensor], bn: str) -> Tensor:
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{bn}.{name}"] for name in names))


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_latent_graph_without_residual_has_a_gamma_that_takes_no_part() -> None:
    """The reference holds gamma either way and adds gamma * y to the input only with the residual."""
    plain = LatentGraph(8, nodes=(3,), stride=2, residual=False).double().eval()
    state = plain.state_dict() | {"gamma": torch.full((1,), 2.0)}
    plain.load_state_dict(state)
    added = LatentGraph(8, nodes=(3,), stride=2).double().eval()
    added.load_state_dict(state)
    x = images(2, 8, 5, 4)
    torch.testing.assert_close(added(x), x + 2 * plain(x))
    plain.train()(x).square().sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in plain.parameters())
    assert [name for name, p in plain.named_parameters() if not p.requires_grad] == ["gamma"]


def test_base_oc_of_another_width() -> None:
    """openseg's: the context keeps the width of the input, the last convolution alone changes it."""
    width, out, keys, values = 6, 4, 3, 5
    shapes = conv_bn("conv_bn_dropout.0", "conv_bn_dropout.1.0", (out, 2 * width, 1, 1), bias=True)
    for branch in ("f_key", "f_query"):
        shapes |= conv_bn(f"stages.0.{branch}.0", f"stages.0.{branch}.1.0", (keys, width, 1, 1), bias=True)
        shapes |= conv_bn(f"stages.0.{branch}.2", f"stages.0.{branch}.3.0", (keys, keys, 1, 1), bias=True)
    for name, shape in {"f_value": (values, width), "W": (width, values)}.items():
        shapes |= {f"stages.0.{name}.weight": (*shape, 1, 1), f"stages.0.{name}.bias": shape[:1]}
    state = drawn(shapes)
    arguments = {"in_channels": width, "out_channels": out, "key_channels": keys, "value_channels": values}
    block = official_block("openseg_base_oc", arguments | {"sizes": [1], "bn_type": "torchbn"}, state).double()

    def project(x: Tensor, branch: str) -> Tensor:
        for conv, bn in ((0, 1), (2, 3)):
            x = F.conv2d(x, state[f"stages.0.{branch}.{conv}.weight"], state[f"stages.0.{branch}.{conv}.bias"])
            x = norm(x, state, f"stages.0.{branch}.{bn}.0").relu()
        return x.flatten(2)

    x = images(2, width, 4, 3)
    attention = (project(x, "f_query").mT @ project(x, "f_key") * keys**-0.5).softmax(-1)
    value = F.conv2d(x, state["stages.0.f_value.weight"], state["stages.0.f_value.bias"]).flatten(2)
    context = (value @ attention.mT).view(2, values, 4, 3)
    context = F.conv2d(context, state["stages.0.W.weight"], state["stages.0.W.bias"])
    fused = F.conv2d(torch.cat([context, x], dim=1), state["conv_bn_dropout.0.weight"], state["conv_bn_dropout.0.bias"])
    torch.testing.assert_close(block(x), norm(fused, state, "conv_bn_dropout.1.0").relu())


def test_base_oc_of_the_first_code_keeps_the_width_of_its_context() -> None:
    block = BaseOC(6, out_channels=4)
    assert block.stages[0].get_parameter("out.weight").shape[0] == 6
    assert block(images(1, 6, 3, 3).float()).shape == (1, 4, 3, 3)


SEPARABLE = {
    "type": "DepthwiseSeparableASPPHead",
    "in_channels": 8,
    "in_index": 3,
    "channels": 4,
    "dilations": [1, 2],
    "c1_in_channels": 0,
    "c1_channels": 0,
    "num_classes": 3,
    "dropout_ratio": 0.0,
    "norm_cfg": {"type": "BN"},
}


def test_separable_pyramid_without_the_finest_level() -> None:
    """Two separable convolutions follow the pyramid all the same, at its resolution."""
    layers = {"image_pool.1": (4, 8, 1, 1), "aspp_modules.0": (4, 8, 1, 1), "bottleneck": (4, 12, 3, 3)}
    layers |= {"aspp_modules.1.depthwise_conv": (8, 1, 3, 3), "aspp_modules.1.pointwise_conv": (4, 8, 1, 1)}
    for i in (0, 1):
        layers |= {f"sep_bottleneck.{i}.depthwise_conv": (4, 1, 3, 3)}
        layers |= {f"sep_bottleneck.{i}.pointwise_conv": (4, 4, 1, 1)}
    shapes: dict[str, tuple[int, ...]] = {"conv_seg.weight": (3, 4, 1, 1), "conv_seg.bias": (3,)}
    for name, shape in layers.items():
        shapes |= conv_bn(f"{name}.conv", f"{name}.bn", shape)
    state = drawn(shapes)
    head = build_head(SEPARABLE, state).double().eval()
    head.load_state_dict(head.state_dict())

    def cbr(x: Tensor, name: str, **options: int) -> Tensor:
        return norm(F.conv2d(x, state[f"{name}.conv.weight"], **options), state, f"{name}.bn").relu()

    x = images(1, 8, 6, 5)
    pooled = cbr(x.mean((2, 3), keepdim=True), "image_pool.1").expand(1, 4, 6, 5)
    dilated = cbr(x, "aspp_modules.1.depthwise_conv", padding=2, dilation=2, groups=8)
    maps = [pooled, cbr(x, "aspp_modules.0"), cbr(dilated, "aspp_modules.1.pointwise_conv")]
    y = cbr(torch.cat(maps, dim=1), "bottleneck", padding=1)
    for i in (0, 1):
        y = cbr(y, f"sep_bottleneck.{i}.depthwise_conv", padding=1, groups=4)
        y = cbr(y, f"sep_bottleneck.{i}.pointwise_conv")
    expected = F.conv2d(y, state["conv_seg.weight"], state["conv_seg.bias"])
    torch.testing.assert_close(head([images(1, 2, 12, 10)] * 3 + [x]), expected, rtol=1e-5, atol=1e-5)


FCN = {"type": "FCNHead", "in_channels": 8, "in_index": 2, "channels": 4, "num_convs": 1, "concat_input": False}
FCN |= {"num_classes": 3, "norm_cfg": {"type": "BN"}}
OCR = {"type": "OCRHead", "in_channels": 8, "in_index": 3, "channels": 4, "ocr_channels": 4, "num_classes": 3}
OCR |= {"norm_cfg": {"type": "BN"}}
FPN_HEAD = {"type": "FPNHead", "in_channels": [4, 4], "in_index": [0, 1], "feature_strides": [4, 8], "channels": 4}
FPN_HEAD |= {"num_classes": 3, "norm_cfg": {"type": "BN"}}
NECK = {"type": "FPN", "in_channels": [4, 8], "out_channels": 4, "num_outs": 2}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SEPARABLE | {"c1_channels": 48}, "c1_channels=48 is not supported: it must be 0"),
        (FCN | {"out_channels": 1}, "out_channels=1 is not supported: it must be num_classes, 3"),
        ([FCN | {"align_corners": True}, OCR], "differ in align_corners"),
        ([FCN | {"norm_cfg": {"type": "BN", "eps": 1e-3}}, OCR], "differ in norm_cfg"),
        ([FCN | {"act_cfg": {"type": "GELU"}}, OCR], "differ in act_cfg"),
        ([FCN | {"num_convs": 2}, OCR], "num_convs=2 is not supported"),
        ([{key: FCN[key] for key in FCN if key != "concat_input"}, OCR], "concat_input=True is not supported"),
        (FPN_HEAD | {"neck": NECK | {"norm_cfg": {"type": "BN"}}}, "an FPN of mmsegmentation's defaults"),
        (FPN_HEAD | {"neck": NECK | {"upsample_cfg": {"mode": "bilinear"}}}, "an FPN of mmsegmentation's defaults"),
        (FPN_HEAD | {"neck": NECK | {"start_level": 1}}, "an FPN of mmsegmentation's defaults"),
    ],
)
def test_what_would_be_another_network_is_refused(config: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_head(config, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "same"),
    [
        (FCN | {"out_channels": 3, "threshold": 0.3}, FCN),
        ([FCN | {"align_corners": False, "dropout_ratio": 0.3}, OCR | {"act_cfg": {"type": "ReLU"}}], [FCN, OCR]),
        (
            FPN_HEAD | {"neck": NECK | {"start_level": 0, "upsample_cfg": {"mode": "nearest"}}},
            FPN_HEAD | {"neck": NECK},
        ),
    ],
)
def test_defaults_may_be_spelt_out(config: Any, same: Any) -> None:
    shapes = [{name: x.shape for name, x in new_head(each).state_dict().items()} for each in (config, same)]
    assert shapes[0] == shapes[1]
    assert isinstance(new_head(config), nn.Module)
