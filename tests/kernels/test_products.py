"""Matrix products by oneDNN: the same results as ``@``, forward, backward and twice backward."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks._layers import Conv1x1
from lightning_app.kernels import products
from lightning_app.kernels.attention import attend
from lightning_app.kernels.products import baddbmm, linear, matmul
from lightning_app.tools.bench_timing import gflop

if not products.BUILT:
    pytest.skip("this PyTorch has no oneDNN", allow_module_level=True)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "FASTER", True)
    monkeypatch.setattr(products, "WORTH", 0)
    monkeypatch.setattr(products, "NARROW", 0)


def called(function: object) -> bool:
    """Whether a product ran by oneDNN."""
    with torch.profiler.profile() as profile:
        function()  # type: ignore[operator]
    return any("_linear_pointwise" in event.key for event in profile.key_averages())


LAYOUTS = {
    "rows": lambda x: x,
    "columns": lambda x: x.mT.contiguous().mT,
    "part": lambda x: torch.cat([x, x], dim=-1)[..., : x.shape[-1]],
    "spread": lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
}


@pytest.mark.parametrize("right", LAYOUTS)
@pytest.mark.parametrize("left", LAYOUTS)
def test_product_equals_that_of_double_precision(left: str, right: str) -> None:
    a, b = LAYOUTS[left](torch.randn(3, 5, 7)), LAYOUTS[right](torch.randn(3, 7, 4))
    assert called(lambda: matmul(a, b))
    torch.testing.assert_close(matmul(a, b), (a.double() @ b.double()).float())


def test_one_matrix_serves_a_batch_and_gets_the_sum_of_gradients() -> None:
    weight, x = torch.randn(5, 7, requires_grad=True), torch.randn(3, 7, 4)
    (ours,) = torch.autograd.grad(matmul(weight, x).square().sum(), weight)
    (plain,) = torch.autograd.grad((weight @ x).square().sum(), weight)
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("grad", [torch.randn(2, 5, 4), torch.ones(()).expand(2, 5, 4)], ids=["dense", "expanded"])
def test_gradients_and_their_gradients_equal_those_of_the_plain_product(grad: Tensor) -> None:
    a, b = torch.randn(2, 5, 7, requires_grad=True), torch.randn(2, 7, 4, requires_grad=True)
    results = []
    for product in (matmul, torch.matmul):
        first = torch.autograd.grad(product(a, b), (a, b), grad, create_graph=True)
        assert called(lambda product=product: torch.autograd.grad(product(a, b), a, grad)) == (product is matmul)
        results.append((*first, *torch.autograd.grad(sum(part.square().sum() for part in first), (a, b))))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("worth", [0, 2**40], ids=["oneDNN", "plain"])
def test_sums_with_a_product(layout: str, batch: int, worth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "WORTH", worth)
    x, a, b = torch.randn(batch, 5, 4), torch.randn(batch, 5, 7), torch.randn(batch, 7, 4)
    weight, bias = torch.randn(3, 4), torch.randn(3)
    for leaf in (x, a, b, weight, bias):
        leaf.requires_grad_()
    results = []
    for added, projected in (
        (baddbmm(LAYOUTS[layout](x), a, b), linear(LAYOUTS[layout](x), weight, bias)),
        (x + a @ b, x @ weight.T + bias),
    ):
        loss = added.square().sum() + projected.square().sum()
        results.append((added, projected, *torch.autograd.grad(loss, (x, a, b, weight, bias))))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
def test_pointwise_convolution(bias: bool, layout: torch.memory_format, batch: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        conv = Conv1x1(4, 6, bias=bias)
        x = torch.randn(batch, 4, 5, 7).contiguous(memory_format=layout).requires_grad_()
        wanted = layout == torch.contiguous_format or threads == 1
        assert called(lambda: conv(x)) == wanted
        ours, plain = conv(x), F.conv2d(x, conv.weight, conv.bias)
        torch.testing.assert_close(ours, plain)
        assert ours.is_contiguous(memory_format=layout)
        leaves, grad = (x, *conv.parameters()), torch.randn_like(plain)
        for mine, reference in zip(
            torch.autograd.grad(ours, leaves, grad), torch.autograd.grad(plain, leaves, grad), strict=True
        ):
            torch.testing.assert_close(mine, reference)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("dtype", "autocast", "expected"),
    [
        (torch.float64, False, torch.float64),
        (torch.bfloat16, False, torch.bfloat16),
        (torch.float32, True, torch.bfloat16),
    ],
)
def test_other_precisions_are_left_to_pytorch(dtype: torch.dtype, autocast: bool, expected: torch.dtype) -> None:
    a, b = torch.randn(2, 5, 7, dtype=dtype), torch.randn(2, 7, 4, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert not called(lambda: matmul(a, b))
        assert matmul(a, b).dtype == expected


def test_attention_of_equal_widths_equals_the_plain_form() -> None:
    q, k, v = (torch.randn(2, n, 8, requires_grad=True) for n in (300, 41, 41))
    ours, plain = attend(q, k, v, 0.3), (0.3 * q @ k.mT).softmax(-1) @ v
    assert called(lambda: attend(q, k, v, 0.3))
    torch.testing.assert_close(ours, plain)
    grad = torch.randn_like(plain)
    for mine, reference in zip(
        torch.autograd.grad(ours, (q, k, v), grad), torch.autograd.grad(plain, (q, k, v), grad), strict=True
    ):
        torch.testing.assert_close(mine, reference)


def test_functional_gradients_pass_through() -> None:
    x, query = torch.randn(2, 7, 4), torch.randn(2, 5, 4)

    def loss(x: Tensor) -> Tensor:
        return matmul(query, attend(x, x, x, 0.3).mT).square().sum()

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(loss)(x), expected)


def test_an_exported_graph_holds_at_other_sizes_on_other_machines() -> None:
    side = torch.export.Dim.AUTO
    graph = torch.export.export(
        Conv1x1(4, 6), (torch.randn(2, 4, 5, 7),), dynamic_shapes=({0: side, 2: side, 3: side},)
    )
    assert graph.module()(torch.randn(17, 4, 3, 9)).shape == (17, 6, 3, 9)
    assert "mkldnn" not in str(graph.graph)


def test_the_counter_of_operations_sees_the_products() -> None:
    class Product(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return matmul(x, x)

    assert gflop(Product(), torch.randn(1, 8, 8)) == 2 * 8**3 / 1e9


def test_fused_attention_is_counted() -> None:
    class Attention(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, x, x)

    assert gflop(Attention(), torch.randn(1, 2, 5, 8)) == 2 * (2 * 2 * 5 * 5 * 8) / 1e9
