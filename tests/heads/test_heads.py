"""The contract that every registered head and block keeps, whoever wrote it."""

import io
from inspect import getfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small import CLASSES, SIZES, WIDTHS, build, build_head, image, levels
from torch import nn

from lightning_app.heads.base import ContextHead, Outputs
from lightning_app.registry import BLOCKS, HEADS, Entry
from lightning_app.util.errors import InputError

FROZEN = {  # weights that never learn, and why
    "emanet": "mid.",  # the fit is outside the graph, in the paper's code too
}

NARROW: dict[str, dict[str, Any]] = {  # convolve fine maps, whose gradients in fp16 take a CPU seconds
    **{slug: {"channels": 16} for slug in ("carafe", "dpt", "pointrend", "setr")},
    "smp": {"decoder_options": {"decoder_channels": (32, 16, 16, 8)}},
}

CANCELS = {"block.conv_mask.bias", "conv_mask.bias"}  # in a softmax over positions: no gradient, but for rounding

HEAD = pytest.mark.parametrize("entry", HEADS.values(), ids=list(HEADS))
BLOCK = pytest.mark.parametrize("entry", BLOCKS.values(), ids=list(BLOCKS))


def assert_every_parameter_learns(module: nn.Module, frozen: str | None) -> None:
    for name, parameter in module.named_parameters():
        if frozen is not None and frozen in name:
            assert not parameter.requires_grad, name
        else:
            assert parameter.grad is not None, f"{name} has no gradient"
            assert parameter.grad.isfinite().all(), name
            if name in CANCELS:
                assert parameter.grad.abs().max() < 1e-4, name
            else:
                assert parameter.grad.any(), f"{name} has a gradient of nothing but zeros"


def reloaded(module: nn.Module, fresh: nn.Module) -> nn.Module:
    """``fresh`` with the weights of ``module``, through a file."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


@HEAD
def test_head_maps_levels_to_logits(entry: Entry) -> None:
    head, features = build_head(entry.cls), levels()
    outputs = head.outputs(features)
    assert isinstance(outputs, Outputs)
    assert outputs.logits.shape[:2] == (2, CLASSES)
    sizes = {(scale * height, scale * width) for height, width in SIZES for scale in (1, 2, 4, 8, 16)}
    assert outputs.logits.shape[2:] in sizes or entry.slug in ("smp", "dpt")  # their decoders round sizes up
    assert torch.equal(outputs.logits, head(features))
    for auxiliary in outputs.auxiliary:
        assert auxiliary.logits.shape[:2] == (2, CLASSES)
        assert auxiliary.weight > 0


@HEAD
def test_head_sees_one_image_at_a_time(entry: Entry) -> None:
    head, features = build_head(entry.cls), levels()
    first = head([x[:1] for x in features])
    torch.testing.assert_close(first, head(features)[:1], rtol=1e-3, atol=1e-4)


@HEAD
def test_head_gives_every_parameter_a_gradient(entry: Entry) -> None:
    head = build_head(entry.cls).train()
    outputs = head.outputs(levels())
    logits = [outputs.logits, *(auxiliary.logits for auxiliary in outputs.auxiliary)]
    torch.stack([(x * torch.randn_like(x)).sum() for x in logits]).sum().backward()
    assert_every_parameter_learns(head, FROZEN.get(entry.slug))


@HEAD
def test_head_is_restored_from_its_weights(entry: Entry) -> None:
    head, features = build_head(entry.cls), levels()
    head.train()(features)  # moves the running statistics
    fresh = reloaded(head, build_head(entry.cls, seed=1))
    assert torch.equal(fresh(features), head.eval()(features))


def assert_finite_in(dtype: torch.dtype, head: ContextHead) -> None:
    """One step of training under autocast, images of contrast 1 and 30: outputs, gradients and buffers are finite."""
    for contrast in (1, 30):
        features = [(contrast * x).requires_grad_() for x in levels()]
        head.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            outputs = head.outputs(features)
        logits = [outputs.logits, *(auxiliary.logits for auxiliary in outputs.auxiliary)]
        torch.stack([x.float().mean() for x in logits]).sum().backward()
        assert all(x.isfinite().all() for x in logits)
        assert all(x.grad is None or x.grad.isfinite().all() for x in features)
        for name, each in [*head.named_parameters(), *head.named_buffers()]:
            assert each.isfinite().all(), name
            assert each.grad is None or each.grad.isfinite().all(), name


@HEAD
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_head_trains_in_half_precision(entry: Entry, dtype: torch.dtype) -> None:
    assert_finite_in(dtype, build_head(entry.cls, **NARROW.get(entry.slug, {})).train())


@pytest.mark.parametrize("mode", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("graph_conv", [False, True])
def test_latent_nodes_that_nothing_reaches_stay_finite(mode: str, graph_conv: bool) -> None:
    """Where a ReLU leaves an assignment of zeros, its length is zero in every precision."""
    head = build_head(HEADS["latentgnn"].cls, mode=mode, graph_conv=graph_conv).train()
    for name, parameter in head.named_parameters():
        if "psi" in name and name.endswith("bn.bias"):
            nn.init.constant_(parameter, -100)
    assert_finite_in(torch.float16, head)


@pytest.mark.parametrize("slug", ["fcn", "nonlocal_net", "ccnet", "danet", "ann", "ocrnet", "pspnet"])
def test_head_compiles_in_one_graph(slug: str) -> None:
    head, features = build_head(HEADS[slug].cls), levels()
    torch.compiler.reset()
    compiled = torch.compile(head, backend="eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(features), head(features))


@HEAD
def test_head_takes_the_shared_options(entry: Entry) -> None:
    low_level = build_head(entry.cls, dropout=0.0, align_corners=True, low_level_channels=4)
    assert low_level.align_corners
    assert low_level.dropout.p == 0
    finer = 4 if entry.slug == "pointrend" else 1
    assert low_level(levels()).shape == (2, CLASSES, *(finer * side for side in SIZES[0]))
    with pytest.raises(TypeError, match="chanels"):
        build_head(entry.cls, chanels=4)


@HEAD
def test_head_works_on_two_levels(entry: Entry) -> None:
    logits = build_head(entry.cls, WIDTHS[2:])(levels(1, WIDTHS[2:], SIZES[2:]))
    assert logits.shape[:2] == (1, CLASSES)


@HEAD
def test_head_has_one_name_everywhere(entry: Entry) -> None:
    assert Path(getfile(entry.cls)).stem == entry.slug
    path = Path(__file__).parents[2] / "configs" / "head" / f"{entry.slug}.yaml"
    assert yaml.safe_load(path.read_text())["model"]["head"]["class_path"] == entry.cls.__name__
    assert entry.summary.endswith(".")


def test_no_config_without_a_head() -> None:
    assert {path.stem for path in (Path(__file__).parents[2] / "configs" / "head").glob("*.yaml")} == set(HEADS)


@BLOCK
@pytest.mark.parametrize("size", [(11, 13), (8, 5)], ids=str)
def test_block_keeps_the_shape(entry: Entry, size: tuple[int, int]) -> None:
    block, x = build(entry.cls), image(size=size)
    y = block(x)
    assert y.shape == x.shape
    torch.testing.assert_close(block(x[:1]), y[:1], rtol=1e-3, atol=1e-4)
    assert entry.summary


@BLOCK
def test_block_gives_every_parameter_a_gradient(entry: Entry) -> None:
    block, x = build(entry.cls).train(), image().requires_grad_()
    y = block(x)
    (y * torch.randn_like(y)).sum().backward()
    assert_every_parameter_learns(block, FROZEN.get(entry.slug))
    assert x.grad is not None
    assert x.grad.any()


@BLOCK
def test_block_is_restored_from_its_weights(entry: Entry) -> None:
    block, x = build(entry.cls), image()
    block.train()(x)
    assert torch.equal(reloaded(block, build(entry.cls, seed=1))(x), block.eval()(x))


@BLOCK
def test_block_is_close_in_bfloat16(entry: Entry) -> None:
    block, x = build(entry.cls), image()
    exact = block(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = block(x).float()
    assert y.isfinite().all()
    assert (y - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize(
    ("slug", "arguments"),
    [
        ("polarized", {"form": "sequential"}),
        ("polarized", {"mode": "official"}),
        ("gcnet", {"pooling": "max"}),
        ("gcnet", {"fusion": ["sum"]}),
        ("latentgnn", {"mode": "both"}),
        ("cbam", {"pools": ["mean"]}),
    ],
)
def test_a_misspelt_word_is_refused(slug: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="one of"):
        BLOCKS[slug].cls(16, **arguments)
