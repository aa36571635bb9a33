"""Every block against the numbers that its paper's own code computed, in float64."""

import pytest
import torch
from goldens import OFFICIAL, PORTS, Golden
from torch import Tensor, nn

FILES = sorted(OFFICIAL.glob("*.npz"))


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    """Equal relative to the largest entry of what is expected."""
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9 * expected.abs().max().item())


def test_a_row_for_every_file() -> None:
    assert {Golden.load(path).meta["name"] for path in FILES} == set(PORTS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_output_and_gradient(path) -> None:
    golden = Golden.load(path)
    inputs = [x.requires_grad_() for x in golden.tensors("input")]
    outputs = golden.block()(*inputs, **golden.meta["forward_kwargs"])
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    expected = golden.tensors("output")
    assert len(outputs) == len(expected)
    for actual, target in zip(outputs, expected, strict=True):
        assert_equal(actual, target)
    total = sum((output * cotangent).sum() for output, cotangent in zip(outputs, golden.tensors("cot"), strict=True))
    gradients = torch.autograd.grad(total, inputs)
    for actual, target in zip(gradients, golden.tensors("grad_input"), strict=True):
        assert_equal(actual, target)


@pytest.mark.parametrize("name", ["cgnl_dot", "cgnl_rbf"])
def test_cgnl_before_its_group_norm(name: str) -> None:
    """GroupNorm divides the attention scalar out, so only the values before it show phi and g."""
    golden = Golden.load(OFFICIAL / f"{name}.npz")
    block = golden.block()
    seen: list[tuple[Tensor, Tensor]] = []
    z = block.z
    assert isinstance(z, nn.Module)
    z.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    block(*golden.tensors("input"))
    ((z_in, z_out),) = seen
    assert_equal(z_in, golden.extra["z_in"])
    assert_equal(z_out, golden.extra["z_out"])


def test_emanet_moves_its_bases_in_training() -> None:
    golden = Golden.load(OFFICIAL / "emanet_emau.npz")
    block = golden.block().train()
    block(*golden.tensors("input"))
    assert_equal(block.get_buffer("bases"), golden.extra["mu_after_ema_step"])
