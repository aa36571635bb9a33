"""Every block equals its plain form, which stands beside the fast one or in benchmarks/reference, forward and backward,
with weights away from their start."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from lightning_app import kernels

REFERENCES = Path(__file__).parents[2] / "benchmarks" / "reference"

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("a2net", "DoubleAttention", {}),
    ("a2net", "DoubleAttention", {"width": 6, "descriptors": 5}),
    ("a2net", "DoubleAttention", {"width": 6, "expand": False, "residual": False}),
    ("beyond_grids", "GraphUnits", {}),
    ("beyond_grids", "GraphUnits", {"vertices": (3,), "width": 5}),
    ("carafe", "CARAFEUpsample", {"compressed": 6}),
    ("carafe", "CARAFEUpsample", {"scale": 3, "kernel": 3, "groups": 2, "encoder_kernel": 5, "encoder_dilation": 2}),
    ("cgnl", "CompactNonLocal", {}),
    ("cgnl", "CompactNonLocal", {"width": 12, "groups": 4, "kernel": "rbf", "order": 2, "use_scale": True}),
    ("cgnl", "CompactNonLocal", {"groups": 1, "kernel": "rbf", "order": 1}),
    ("dgmn", "DynamicMessagePassing", {}),
    ("dgmn", "DynamicMessagePassing", {"groups": 2, "dilations": (1, 3), "released": True}),
    ("dgmn", "DynamicMessagePassing", {"deform": "deform"}),
    ("dgmn", "DynamicMessagePassing", {"deform": "none"}),
    ("efficient_attention", "EfficientSelfAttention", {}),
    ("efficient_attention", "EfficientSelfAttention", {"key_channels": 6, "value_channels": 9, "heads": 3}),
    ("emanet", "EMAU", {"bases": 5}),
    ("emanet", "EMAU", {"bases": 4, "stages": 1, "unit_update": True, "eps": 0.1}),
    ("glore", "GlobalReasoning", {}),
    ("glore", "GlobalReasoning", {"nodes": 7, "states": 5, "normalize": False}),
    ("latentgnn", "LatentGraph", {}),
    ("latentgnn", "LatentGraph", {"nodes": (6, 5), "stride": 2, "mode": "symmetric"}),
    ("latentgnn", "LatentGraph", {"nodes": (6, 5), "graph_conv": True, "residual": False}),
    ("local_relation", "LocalRelationLayer", {}),
    *(
        ("local_relation", "LocalRelationLayer", {"kernel": 3, "dilation": 2, "group_channels": 2, "similarity": s})
        for s in ("key", "abs", "relative_abs", "relative_square", "square")
    ),
    ("sgr", "SymbolicReasoning", {"nodes": 5, "width": 6}),
    (
        "sgr",
        "SymbolicReasoning",
        {"adjacency": [[0, 2, 1], [2, 0, 0], [1, 0, 0]], "embeddings": [[1, 2], [0, 1], [3, 0]]},
    ),
    ("sgr", "SymbolicReasoning", {"mapping": "additive"}),
]


def plain_module(slug: str) -> ModuleType:
    """The module whose class runs the paper's form where fast ones are off."""
    if not (REFERENCES / f"{slug}.py").is_file():
        return importlib.import_module(f"lightning_app.blocks.{slug}")
    spec = importlib.util.spec_from_file_location(f"plain_{slug}", REFERENCES / f"{slug}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def disturb(module: nn.Module) -> None:
    """Move every weight and statistic, so that nothing which starts at zero hides a difference."""
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            nn.init.uniform_(buffer, -0.5, 0.5)
        if name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 1.5)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("slug", "cls", "arguments"), CASES, ids=lambda value: str(value))
def test_equals_its_plain_form(slug: str, cls: str, arguments: dict[str, Any], training: bool) -> None:
    torch.manual_seed(0)
    block = getattr(importlib.import_module(f"lightning_app.blocks.{slug}"), cls)(16, **arguments).double()
    disturb(block)
    plain = getattr(plain_module(slug), cls)(16, **arguments).double()
    plain.load_state_dict(block.state_dict())
    block.load_state_dict(block.state_dict())  # weights that were loaded stay where they are
    block.train(training)
    plain.train(training)

    x = torch.randn(2, 16, 11, 7, dtype=torch.float64, requires_grad=True)
    ours = block(x)
    with kernels.fast(False):
        theirs = plain(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    cotangent = torch.randn_like(ours)
    gradients = torch.autograd.grad(ours, [x, *learnt(block)], cotangent)
    expected = torch.autograd.grad(theirs, [x, *learnt(plain)], cotangent)
    for gradient, target in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, target, rtol=1e-8, atol=1e-8 * max(1, target.abs().max().item()))


def learnt(block: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in block.parameters() if parameter.requires_grad]


@pytest.mark.parametrize(("slug", "cls", "arguments"), CASES, ids=lambda value: str(value))
@torch.no_grad()
def test_any_layout_and_size(slug: str, cls: str, arguments: dict[str, Any]) -> None:
    """Channels-last input gives the same result, one position and one image suffice, bf16 stays finite and close."""
    torch.manual_seed(0)
    block = getattr(importlib.import_module(f"lightning_app.blocks.{slug}"), cls)(16, **arguments).eval()
    disturb(block)
    x = torch.randn(1, 16, 9, 6)
    expected = block(x)
    torch.testing.assert_close(block(x.contiguous(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        low = block(x)
    assert (low - expected).norm() < 0.05 * expected.norm()
    assert torch.isfinite(block(x[..., :1, :1])).all()
