"""The shared layers against torch's own operators, and the quick forms of blocks against the formulas as they stand."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small import build, build_head, image, levels
from torch import Tensor, nn
from torch.export import Dim, export
from torch.nn import functional as F

from lightning_app.blocks._layers import adaptive_avg_pool, conv_upsampled
from lightning_app.heads.base import ContextHead

REFERENCES = sorted((Path(__file__).parents[2] / "benchmarks" / "reference").glob("*.py"))
UNGUARDED = {"beyond_grids"}  # its formulas divide by the mass of each vertex, and on a map this small some have none
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "apcnet": [{"scale": 6, "fusion": False, "out_channels": 24}],
    "deeplabv3": [{"dilations": (1, 2, 5), "separable": True, "out_channels": 24}],
    "dmnet": [{"filter_size": 4, "fusion": True}, {"filter_size": 1}],
    "emanet": [{"bases": 3, "stages": 1, "eps": 0.1}],
    "gcnet": [{"pooling": "avg", "fusion": ("mul", "add"), "ratio": 1 / 16}],
    "ocrnet": [{"regions": 5, "key_channels": 6, "out_channels": 24, "bias": True, "scale": 2}],
    "pspnet": [{"scales": (1, 4), "align_corners": True, "out_channels": 24}],
    "upernet": [{"levels": (1, 3), "align_corners": True}],
}
CASES = [
    pytest.param(path, arguments, id=f"{path.stem}-{i}")
    for path in REFERENCES
    if path.stem not in UNGUARDED
    for i, arguments in enumerate([{}, *ARGUMENTS.get(path.stem, [])])
]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 13), (64, 30)], ids=str)
@pytest.mark.parametrize("cells", [1, 2, 3, 5, 6, 8])
def test_pooling_equals_torch(cells: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    ours, theirs = adaptive_avg_pool(x, cells), F.adaptive_avg_pool2d(x, cells)
    torch.testing.assert_close(ours, theirs)
    cotangent = torch.randn_like(ours)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, cotangent)[0] for y in (ours, theirs)))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (7, 2), (20, 13)], ids=str)
def test_convolving_before_enlarging_equals_after(size: tuple[int, int], kernel: int, align_corners: bool) -> None:
    maps = [torch.randn(2, 4, *small, dtype=torch.float64) for small in ((1, 1), (2, 3), (6, 6), (10, 7))]
    weight = torch.randn(5, 16, kernel, kernel, dtype=torch.float64)
    enlarged = [F.interpolate(x, size, mode="bilinear", align_corners=align_corners) for x in maps]
    expected = F.conv2d(torch.cat(enlarged, dim=1), weight, padding=kernel // 2)
    torch.testing.assert_close(conv_upsampled(maps, weight, size, align_corners), expected)


class Sizes(nn.Module):
    """What depends on H and W in the shared layers."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return conv_upsampled([adaptive_avg_pool(x, 3)], weight, x.shape[2:])


def test_an_exported_graph_takes_any_size() -> None:
    weight = torch.randn(2, 3, 3, 3)
    sizes = {0: Dim("batch", max=8), 2: Dim("height", min=4, max=512), 3: Dim("width", min=4, max=512)}
    graph = export(Sizes(), (torch.randn(2, 3, 18, 30), weight), dynamic_shapes=(sizes, None)).module()
    for shape in ((1, 3, 5, 64), (3, 3, 33, 21)):
        x = torch.randn(shape)
        torch.testing.assert_close(graph(x, weight), Sizes()(x, weight))


def plain_forms(path: Path) -> list[type[nn.Module]]:
    """The classes of a reference file; each derives from the quick form."""
    spec = importlib.util.spec_from_file_location(f"reference_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [x for x in vars(module).values() if isinstance(x, type) and x.__module__ == module.__name__]


def output_and_gradients(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    inputs = [x.double().requires_grad_() for x in inputs]
    torch.manual_seed(2)  # for dropout
    output = module(inputs if isinstance(module, ContextHead) else inputs[0])
    cotangent = torch.randn(output.shape, dtype=output.dtype)
    found = torch.autograd.grad(output, inputs, cotangent, materialize_grads=True)
    return [output, *found]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("path", "arguments"), CASES)
def test_quick_form_equals_the_formulas(path: Path, arguments: dict[str, Any], training: bool) -> None:
    """Same weights, same output, same gradients; in training too, where batch norm sees what it saw."""
    for plain_class in plain_forms(path):
        quick_class = plain_class.__base__
        assert quick_class is not None
        if issubclass(quick_class, ContextHead):
            quick, plain = (build_head(form, **arguments) for form in (quick_class, plain_class))
            inputs = levels()
        else:
            quick, plain = (build(form, **arguments) for form in (quick_class, plain_class))
            inputs = [image()]
        plain.load_state_dict(quick.state_dict())
        results = [output_and_gradients(form.double().train(training), inputs) for form in (quick, plain)]
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * max(theirs.abs().max().item(), 1))
