"""What is particular to the blocks that attend: kernels, memory, reach, and agreement with their plain forms."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_app import kernels
from lightning_app.blocks.ann import AFNB
from lightning_app.blocks.ccnet import CrissCrossAttention
from lightning_app.blocks.nonlocal_net import NonLocalBlock
from lightning_app.blocks.psanet import PointwiseSpatialAttention
from lightning_app.heads.ocnet import OCNet
from lightning_app.kernels import attention
from lightning_app.kernels.attention import attend
from lightning_app.kernels.cutting import from_cells, to_cells
from lightning_app.registry import BLOCKS
from lightning_app.tools.bench_subject import Subject
from lightning_app.util.errors import InputError

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *(("nonlocal_net", {"mode": mode}) for mode in ("gaussian", "dot_product", "concatenation", "mean_shift")),
    ("nonlocal_net", {}),
    ("nonlocal_net", {"shared": True, "use_scale": False}),
    ("nonlocal_net", {"mode": "concatenation", "shared": True}),
    ("dnlnet", {}),
    ("ccnet", {"recurrence": 1}),
    ("ccnet", {"recurrence": 3}),
    ("pam", {}),
    ("pam", {"key_channels": 5}),
    ("cam", {}),
    ("isanet", {}),
    ("isanet", {"cells": ((2, 3), (4, 1)), "key_channels": 3, "value_channels": 5}),
    ("base_oc", {}),
    ("base_oc", {"sizes": (1, 2), "openseg": True}),
    ("base_oc", {"sizes": (3,), "value_channels": 5}),
    ("pyramid_oc", {}),
    ("asp_oc", {}),
    ("asp_oc", {"openseg": True}),
    ("ann", {}),
    ("ann", {"pool": "max", "stages": 2, "scales": (2, 4)}),
    ("psanet", {"mask_size": (9, 13)}),
    ("psanet", {"mask_size": (5, 30)}),
    ("psanet", {"mask_size": (4, 6), "mode": "collect", "softmax": False, "normalization_factor": None}),
    ("psanet", {"mask_size": (5, 7), "mode": "distribute", "padding": 1, "shrink_factor": 1}),
    ("psanet", {"mask_size": (5, 7), "compact": True}),
]


def randomised(module: nn.Module) -> nn.Module:
    """The module in float64 with no weight or statistic at its start value."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            nn.init.uniform_(buffer, 0.5, 1.5)
    return module.double()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("slug", "arguments"), VARIANTS, ids=[f"{slug}-{a}" for slug, a in VARIANTS])
def test_equals_its_plain_form(slug: str, arguments: dict[str, Any], training: bool) -> None:
    """Outputs, gradients of input and weights, and running statistics."""
    torch.manual_seed(0)
    subject = Subject(slug, BLOCKS[slug], {"channels": 16, **arguments})
    ours, plain = randomised(BLOCKS[slug].cls(16, **arguments)), subject.plain().double()
    plain.load_state_dict(ours.state_dict())
    size = (10, 14) if arguments.get("compact") else (9, 13)
    inputs = [torch.randn(2, 16, *size, dtype=torch.double).requires_grad_()] * 2
    outputs = [ours.train(training)(inputs[0])]
    with kernels.fast(False):
        outputs.append(plain.train(training)(inputs[1]))
    cotangent = torch.randn_like(outputs[0])
    gradients = [
        torch.autograd.grad(output, [x, *module.parameters()], cotangent)
        for module, x, output in zip((ours, plain), inputs, outputs, strict=True)
    ]
    scale = max(gradient.abs().max().item() for gradient in gradients[1])
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-11 * outputs[1].abs().max().item())
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10 * scale)
    if slug != "ann":  # whose plain form, as the authors' code, passes the shared layer twice in a step
        torch.testing.assert_close(dict(ours.named_buffers()), dict(plain.named_buffers()))


@pytest.mark.parametrize("slug", ["nonlocal_net", "dnlnet", "ccnet", "pam", "cam"])
def test_is_the_identity_at_first(slug: str) -> None:
    x = torch.randn(2, 16, 5, 7)
    torch.testing.assert_close(BLOCKS[slug].cls(16).eval()(x), x, rtol=0, atol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("slug", ["nonlocal_net", "dnlnet", "base_oc"])
def test_runs_the_fused_kernel(slug: str, layout: torch.memory_format) -> None:
    """From a map with strided tokens or unequal widths, torch falls back to an N x N product without a word."""
    block = BLOCKS[slug].cls(16)
    with torch.profiler.profile() as profile:
        block(torch.randn(2, 16, 8, 8).contiguous(memory_format=layout)).sum().backward()
    seen = {event.key for event in profile.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in seen
    assert "aten::_scaled_dot_product_attention_math" not in seen


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operator returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.elements = max(self.elements, *(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor)), 0)
        return out


@pytest.mark.parametrize(
    ("slug", "arguments"),
    [
        *(("nonlocal_net", {"mode": mode}) for mode in ("embedded_gaussian", "gaussian", "dot_product", "mean_shift")),
        ("nonlocal_net", {"mode": "concatenation"}),
        ("dnlnet", {}),
        ("pam", {}),
        ("base_oc", {}),
        ("base_oc", {"value_channels": 4}),
        ("ann", {"scales": (1, 2)}),
    ],
)
def test_never_holds_all_pairs(slug: str, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "CHUNK_ELEMENTS", 2**16)
    n = 48 * 48
    block = BLOCKS[slug].cls(16, **arguments)
    x = torch.randn(1, 16, 48, 48, requires_grad=True)
    with Largest() as largest:
        block(x).sum().backward()
    assert 16 * n <= largest.elements < n * n / 16


@pytest.mark.parametrize(("width", "value_width"), [(3, 5), (5, 3), (4, 4)])
def test_attend(width: int, value_width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In uneven chunks or fused, with more queries than keys."""
    monkeypatch.setattr(attention, "CHUNK_ELEMENTS", 2 * 11 * 3)
    shapes = ((2, 13, width), (2, 11, width), (2, 11, value_width))
    q, k, v = (torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes)
    expected = (0.7 * q @ k.mT).softmax(-1) @ v
    torch.testing.assert_close(attend(q, k, v, 0.7), expected)
    assert torch.autograd.gradcheck(lambda *tensors: attend(*tensors, 0.7), (q, k, v))


@pytest.mark.parametrize("across", [False, True])
def test_cells_hold_what_they_should(across: bool) -> None:
    """On a map of 4 x 9 that holds its own coordinates; 2 x 3 cells of 2 x 3, so both ways give 6 maps of 2 x 3."""
    row, column = torch.meshgrid(torch.arange(4), torch.arange(9), indexing="ij")
    x = torch.stack([row, column]).expand(2, -1, -1, -1)
    cells = to_cells(x, (2, 3), across=across)
    assert cells.shape == (2 * 6, 2, 2, 3)
    for cell in cells:
        place = torch.stack([cell[0] % 2, cell[1] % 3] if across else [cell[0] // 2, cell[1] // 3]).flatten(1)
        assert (place == place[:, :1]).all()
    assert torch.equal(from_cells(cells, (4, 9), (2, 3), across=across), x)


def test_criss_cross_counts_its_centre_once() -> None:
    """With equal logits the context is the mean over the H + W - 1 positions of the cross."""
    block = CrissCrossAttention(4, recurrence=1).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        block.gamma.fill_(1)
        block.value.weight.copy_(torch.eye(4)[..., None, None])
    x = torch.randn(2, 4, 5, 7, dtype=torch.double)
    cross = x.sum(2, keepdim=True) + x.sum(3, keepdim=True) - x
    torch.testing.assert_close(block(x), x + cross / (5 + 7 - 1))


@pytest.mark.parametrize(("recurrence", "reached"), [(1, 5 + 7 - 1), (2, 5 * 7)])
def test_criss_cross_reaches(recurrence: int, reached: int) -> None:
    block = randomised(CrissCrossAttention(8, recurrence=recurrence))
    x = torch.randn(1, 8, 5, 7, dtype=torch.double, requires_grad=True)
    block(x)[0, :, 2, 3].sum().backward()
    assert x.grad is not None
    assert int((x.grad[0].abs().amax(0) > 0).sum()) == reached


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (3, 2)])
@pytest.mark.parametrize("slug", sorted({slug for slug, _ in VARIANTS}))
def test_takes_small_maps(slug: str, size: tuple[int, int]) -> None:
    x = torch.randn(1, 16, *size)
    y = BLOCKS[slug].cls(16).eval()(x)
    assert y.shape == x.shape
    assert y.isfinite().all()


def wrong() -> Iterator[Any]:
    yield lambda: NonLocalBlock(8, mode="gausian"), "gausian.*embedded_gaussian"
    yield lambda: BLOCKS["dnlnet"].cls(8, mode="mean_shift"), "mean_shift"
    yield lambda: PointwiseSpatialAttention(8, mode="colect"), "colect.*collect"
    yield lambda: AFNB(8, 8, pool="mean"), 'mean.*"avg" or "max"'
    yield lambda: OCNet([8] * 4, 2, variant="pyramid", openseg=True), "pyramid"
    yield (
        lambda: PointwiseSpatialAttention(8, mask_size=(5, 5), compact=True)(torch.randn(1, 8, 9, 13)),
        r"\(5, 5\) cannot serve a map of \(5, 7\)",
    )


@pytest.mark.parametrize(("call", "message"), wrong())
def test_what_cannot_be_is_named(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
