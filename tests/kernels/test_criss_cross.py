"""The kernels of criss-cross attention against its plain form, interpreted without a GPU and run on one; their size."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_app import kernels
from lightning_app.blocks.ccnet import CrissCrossAttention
from lightning_app.kernels.criss_cross import products_of_lines

triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed: torch brings it with CUDA")
cuda = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="no CUDA device of compute capability 8.0",
)

# (B, H, W), d, e, dtype. Tiles hold 32 positions and 64 values in fp32. Not bf16: the interpreter multiplies its bits.
INTERPRETED: list[tuple[tuple[int, int, int], int, int, torch.dtype]] = [
    ((2, 5, 4), 12, 40, torch.float32),
    ((1, 1, 9), 1, 8, torch.float32),
    ((1, 2, 35), 16, 72, torch.float32),
    ((1, 5, 3), 12, 40, torch.float16),
]
SCRIPT = """
import sys
import torch
from lightning_app.kernels.criss_cross_triton import criss_cross

cases = torch.load(sys.argv[1])
results = []
for maps, split, grad in cases:
    maps.requires_grad_()
    out = criss_cross(*maps.split(split, dim=-1))
    out.backward(grad)
    results.append((out.detach(), maps.grad))
maps, split, grad = cases[1]
compiled = torch.compile(lambda maps: 2 * criss_cross(*maps.split(split, dim=-1)), fullgraph=True, backend="aot_eager")
(slope,) = torch.autograd.grad(compiled(maps), maps, grad / 2)
torch.testing.assert_close(slope, results[1][1], rtol=0, atol=0)
permuted = maps.detach().permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
same = criss_cross(*permuted.split(split, dim=-1))
torch.testing.assert_close(same, results[1][0], rtol=0, atol=0)
(slope,) = torch.autograd.grad(criss_cross(*maps.split(split, dim=-1)).sum(), maps, create_graph=True)
try:
    slope.sum().backward()
except RuntimeError as error:
    assert "contextzoo.criss_cross_backward" in str(error)
else:
    raise AssertionError("a second derivative went unnoticed")
torch.save(results, sys.argv[2])
"""
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}  # of the largest element


def problem(shape: tuple[int, int, int], depth: int, size: int, dtype: torch.dtype) -> tuple[Tensor, list[int], Tensor]:
    """Queries, keys and values side by side, their widths, and the output's gradient."""
    generator = torch.Generator().manual_seed(sum(shape))
    maps = torch.randn(*shape, 2 * depth + size, generator=generator).to(dtype)
    return maps, [depth, depth, size], torch.randn(*shape, size, generator=generator).to(dtype)


def assert_is_criss_cross(out: Tensor, slope: Tensor, maps: Tensor, split: list[int], grad: Tensor) -> None:
    """Values and the gradients of queries, keys and values are those of the plain form in double precision."""
    leaf = maps.detach().double().requires_grad_()
    expected = products_of_lines(*leaf.split(split, dim=-1))
    (expected_slope,) = torch.autograd.grad(expected, leaf, grad.double())
    pairs = zip((out, *slope.split(split, -1)), (expected, *expected_slope.split(split, -1)), strict=True)
    for ours, theirs in pairs:
        assert ours.dtype == maps.dtype
        atol = TOLERANCE[maps.dtype] * max(theirs.abs().max().item(), 1)
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Tensor, Tensor]]:
    """Outputs and gradients of the kernels, which triton interprets only if told before it is imported."""
    folder = tmp_path_factory.mktemp("criss_cross")
    torch.save([problem(*case) for case in INTERPRETED], folder / "cases.pt")
    command = [sys.executable, "-c", SCRIPT, str(folder / "cases.pt"), str(folder / "results.pt")]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results: list[tuple[Tensor, Tensor]] = torch.load(folder / "results.pt")
    return results


@triton
@pytest.mark.parametrize("number", range(len(INTERPRETED)), ids=lambda number: str(INTERPRETED[number]))
def test_the_interpreted_kernels_equal_the_plain_form(number: int, interpreted: list[tuple[Tensor, Tensor]]) -> None:
    assert_is_criss_cross(*interpreted[number], *problem(*INTERPRETED[number]))


def test_triton_is_imported_only_when_needed() -> None:
    code = "import sys, torch; from lightning_app.blocks.ccnet import CrissCrossAttention as Block; block = Block(8)"
    code += "; block(torch.rand(1, 8, 3, 4)).sum().backward(); print('triton' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@triton
def test_warns_where_triton_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_app.kernels import criss_cross_triton as kernel

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.warns(UserWarning, match="plain form, triton does not work here"):
        assert not kernel.runs_on(torch.device("cuda", 99))


@triton
@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "kib"), [(86, 99), (90, 227)])
@pytest.mark.parametrize(
    ("dtype", "products"), [(torch.bfloat16, "highest"), (torch.float32, "highest"), (torch.float32, "high")]
)
def test_compiles_within_the_shared_memory(
    dtype: torch.dtype, products: str, architecture: int, kib: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lightning_app.kernels import criss_cross_triton as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    torch.set_float32_matmul_precision(products)
    options, chunk = kernels.tiles(dtype, 128, 512)
    torch.set_float32_matmul_precision("highest")
    launch = {name: options.pop(name) for name in ("num_warps", "num_stages")}
    if dtype == torch.float32:
        assert options["PRECISION"] == ("tf32" if products == "high" else "ieee")
    element = "*fp32" if dtype == torch.float32 else "*bf16"

    def shared(kernel: Any, **constants: Any) -> int:
        constants = {name: value for name, value in (constants | options).items() if name in kernel.arg_names}
        signature = {
            name: "constexpr" if name in constants
            else "*fp32" if name in ("lse", "dot")
            else element if name in ("q", "k", "x", "y", "x_side", "y_side", "values", "grad", "out")
            else "i32"
            for name in kernel.arg_names
        }  # fmt: skip
        aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if name not in constants}
        source = ASTSource(kernel, signature, constants, aligned)
        compiled = compile_kernel(source, target=GPUTarget("cuda", architecture, 32), options=launch)
        return int(compiled.metadata.shared)

    for column in (False, True):
        constants = {"COLUMN": column, "CHUNK": chunk}
        assert shared(kernels._log_sum_exp, **constants) <= kib * 1024
        for of_keys in (False, True):
            assert shared(kernels._weighted_sum, OF_KEYS=of_keys, **constants) <= kib * 1024
            assert shared(kernels._grad_of_scores, OF_KEYS=of_keys, **constants) <= kib * 1024


@cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("shape", "depth", "size"), [((2, 97, 97), 64, 512), ((1, 1, 9), 1, 8), ((3, 33, 70), 12, 40)])
def test_on_a_gpu_equals_the_plain_form(shape: tuple[int, int, int], depth: int, size: int, dtype: torch.dtype) -> None:
    maps, split, grad = (x.cuda() if isinstance(x, Tensor) else x for x in problem(shape, depth, size, dtype))
    maps = (maps * depth**-0.25).requires_grad_()
    out = kernels.criss_cross(*maps.split(split, dim=-1))
    (slope,) = torch.autograd.grad(out, maps, grad)
    assert_is_criss_cross(out, slope, maps, split, grad)


@cuda
def test_on_a_gpu_holds_no_map_of_weights() -> None:
    shape, depth, size = (1, 256, 256), 16, 32
    maps, split, grad = (x.cuda() if isinstance(x, Tensor) else x for x in problem(shape, depth, size, torch.float32))
    maps.requires_grad_()
    weights = 4 * shape[1] * shape[2] * (shape[1] + shape[2])
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.autograd.grad(kernels.criss_cross(*maps.split(split, dim=-1)), maps, grad)
    assert torch.cuda.max_memory_allocated() - before < weights / 2


@cuda
def test_on_a_gpu_compiles_in_one_graph() -> None:
    torch.manual_seed(0)
    block = CrissCrossAttention(64).cuda()
    torch.nn.init.ones_(block.gamma)
    x = torch.randn(1, 64, 20, 30, device="cuda")
    compiled = torch.compile(block, fullgraph=True)
    torch.testing.assert_close(compiled(x), block(x), rtol=1e-4, atol=1e-4)
