"""One switch between the fast forms of operators and their plain ones: the same numbers, whichever runs."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from lightning_app import kernels
from lightning_app.kernels import products
from lightning_app.registry import BLOCKS
from lightning_app.tools.bench_subject import Subject

OURS = {"_MatmulBackward", "_ChunkedAttentionBackward", "_WindowSumBackward", "_ConvolutionBackward"}


@pytest.fixture(autouse=True)
def at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products by oneDNN, where there is one, however small."""
    monkeypatch.setattr(products, "FASTER", products.BUILT)
    monkeypatch.setattr(products, "WORTH", 0)
    monkeypatch.setattr(products, "NARROW", 0)


def randomised(slug: str, dtype: torch.dtype) -> nn.Module:
    """With nothing that starts at zero and so hides what stands behind it."""
    torch.manual_seed(0)
    block = BLOCKS[slug].cls(16).to(dtype)
    for parameter in block.parameters():
        nn.init.uniform_(parameter, -0.3, 0.4)
    return block


def nodes(output: Tensor) -> set[str]:
    """Names of all steps that the backward pass of ``output`` takes."""
    found, left = set(), [output.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in found:
            found.add(node)
            left += [before for before, _ in node.next_functions]
    return {type(node).__name__ for node in found}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("slug", list(BLOCKS))
def test_both_forms_of_every_block_give_the_same(slug: str, dtype: torch.dtype) -> None:
    block = randomised(slug, dtype).train(dtype == torch.float64)  # in fp32, noise where statistics cancel a bias
    leaves = [parameter for parameter in block.parameters() if parameter.requires_grad]
    x = torch.randn(2, 16, 9, 12, dtype=dtype, requires_grad=True)
    state = {key: value.clone() for key, value in block.state_dict().items()}  # statistics move with every pass
    results = []
    for fast in (True, False):
        block.load_state_dict(state)
        with kernels.fast(fast):
            torch.manual_seed(0)  # for blocks that draw where they begin
            y = block(x)
            grad = torch.linspace(-1, 1, y.numel(), dtype=dtype).view(y.shape)
            results.append([y, *torch.autograd.grad(y, [x, *leaves], grad)])
    assert kernels.is_fast()
    assert not nodes(results[1][0]) & OURS
    scale = max(value.abs().max().item() for value in results[1][1:])
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    for ours, plain in zip(*results, strict=True):
        assert (ours - plain).abs().max() <= tolerance * max(plain.abs().max().item(), 1e-2 * scale)


@pytest.mark.skipif(not products.BUILT, reason="this PyTorch has no oneDNN")
def test_fast_forms_are_what_runs_by_default() -> None:
    x = torch.randn(1, 16, 9, 12)
    found = [nodes(randomised(slug, torch.float32)(x)) for slug in ("nonlocal_net", "pam", "local_relation", "ccnet")]
    assert set.union(*found) >= OURS - {"_ConvolutionBackward"}


def test_the_switch_holds_until_it_is_turned_back_or_its_block_ends() -> None:
    with kernels.fast(False):
        with kernels.fast(True):
            assert kernels.is_fast()
        assert not kernels.is_fast()
    assert kernels.is_fast()
    kernels.fast(False)
    assert not kernels.is_fast()
    kernels.fast(True)
    assert kernels.is_fast()


def test_the_environment_turns_the_switch() -> None:
    command = [sys.executable, "-c", "from lightning_app import kernels; print(kernels.is_fast())"]
    done = subprocess.run(command, env=os.environ | {"CONTEXTZOO_FAST": "0"}, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("slug", ["a2net", "ccnet", "emanet", "glore", "polarized"])
def test_bench_takes_a_formula_that_stands_in_the_block(slug: str) -> None:
    assert type(Subject(slug, BLOCKS[slug], {"channels": 16}).plain()) is BLOCKS[slug].cls


@pytest.mark.skipif(not products.BUILT, reason="this PyTorch has no oneDNN")
def test_the_private_operator_is_the_one_seen_in_torch_2_14() -> None:
    """Products by oneDNN call it by position: another signature must be read before it is trusted."""
    assert str(torch.ops.mkldnn._linear_pointwise.default._schema) == (
        "mkldnn::_linear_pointwise"
        "(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor Y"
    )
