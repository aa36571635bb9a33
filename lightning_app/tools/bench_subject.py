"""What ``contextzoo bench`` measures: a block or head, its plain form, and the cost of each on one map."""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app import kernels
from lightning_app.registry import Entry
from lightning_app.tools.bench_timing import gflop, interleaved, peak_mb, spread
from lightning_app.util.errors import InputError

REFERENCES = Path(__file__).parents[2] / "benchmarks" / "reference"
STRIDES = {8: (4, 8, 8, 8), 16: (4, 8, 16, 16), 32: (4, 8, 16, 32)}  # of a backbone's levels, by output stride


@dataclass(frozen=True)
class Subject:
    """A block or head as it was named, and how it is built."""

    name: str
    entry: Entry
    arguments: dict[str, Any]

    def plain(self) -> nn.Module:
        """The class of the same name in the reference file, or else the block itself, where its formula stands beside a
        fast form: to be run with fast(False). Same arguments, same state dict."""
        path = REFERENCES / f"{self.entry.slug}.py"
        if not path.is_file() and hasattr(self.entry.cls, "fast"):
            block: nn.Module = self.entry.cls(**self.arguments)
            return block
        spec = importlib.util.spec_from_file_location(f"plain_{self.entry.slug}", path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise InputError(f"{self.name} has no plain form: {path} is not there (only a checkout holds them)")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        plain: nn.Module = getattr(module, self.entry.cls.__name__)(**self.arguments)
        return plain


def has_plain(entry: Entry) -> bool:
    return hasattr(entry.cls, "fast") or (REFERENCES / f"{entry.slug}.py").is_file()


@dataclass(frozen=True)
class Row:
    """Cost on one map; the plain form of a block has a row of its own after the block's.

    ``_ms``: median; ``_spread_ms``: half the interquartile range; ``_mb``: 2^20 bytes of tensors at the peak, beyond
    weights and inputs; ``gflop``: of the forward pass, 2 per multiply-add.
    """

    name: str
    plain: bool
    height: int
    width: int
    parameters: int
    gflop: float
    forward_ms: float
    forward_spread_ms: float
    both_ms: float
    both_spread_ms: float
    forward_mb: float
    both_mb: float
    moved_mb: float  # inputs, weights and outputs, once each
    share: float | None = None  # of the roofline, of the forward pass
    forward_speedup: float | None = None  # median over the pairs of the plain form's time / ours
    both_speedup: float | None = None
    difference: float | None = None  # largest difference of the outputs / largest magnitude of the plain form's


class Case:
    """A module in eval mode and its inputs, to be run forward, or forward and backward; its operators fast or plain."""

    def __init__(
        self, module: nn.Module, inputs: tuple[Any, ...], leaves: Sequence[Tensor], bf16: bool, fast: bool = True
    ) -> None:
        self.module, self.inputs, self.bf16, self.fast = module.eval(), inputs, bf16, fast
        self.leaves = [*leaves, *module.parameters()]
        self.device = leaves[0].device
        self.gradients = [torch.randn_like(output) for output in self.outputs()]

    @torch.no_grad()
    def forward(self) -> Tensor:
        """The prediction, as at inference."""
        with kernels.fast(self.fast), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            prediction: Tensor = self.module(*self.inputs)
        return prediction

    def outputs(self) -> list[Tensor]:
        """All that a loss would see: a head's side outputs too."""
        with kernels.fast(self.fast), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            if not isinstance(self.inputs[0], list):
                return [self.module(*self.inputs)]
            logits, auxiliary = self.module.outputs(*self.inputs)  # type: ignore[operator]
            return [logits, *(side.logits for side in auxiliary)]

    def both(self) -> None:
        """Forward pass, and gradients of weights and inputs."""
        self.clear()
        with kernels.fast(self.fast):
            torch.autograd.backward(self.outputs(), self.gradients)

    def gflop(self) -> float:
        """Of the forward pass."""
        with kernels.fast(self.fast):
            return gflop(self.module, *self.inputs)

    def moved_mb(self) -> float:
        """What the forward pass cannot do without reading or writing once: inputs, weights and outputs."""
        tensors = [*self.leaves, *self.module.buffers(), *self.gradients]  # gradients are of the outputs' shapes
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 2**20

    def peak_mb(self, function: Callable[[], object]) -> float:
        """Memory at the peak of one of the calls."""
        self.clear()
        return peak_mb(function, self.device)

    def clear(self) -> None:
        """Drop the gradients."""
        for leaf in self.leaves:
            leaf.grad = None


def cpu_time(options: argparse.Namespace) -> bool:
    """Whether CPU time stands for the time it takes: one thread, whose neighbours on the machine should not count."""
    return bool(options.device == "cpu" and options.threads == 1)


def measure(subject: Subject, size: tuple[int, int], options: argparse.Namespace) -> list[Row]:
    """Rows of the subject and, where asked for, of its plain form."""
    torch.manual_seed(0)
    modules = [subject.entry.cls(**subject.arguments).to(options.device)]
    for parameter in modules[0].parameters():
        if not parameter.any():  # a gate that starts closed would hide what is behind it
            nn.init.uniform_(parameter, 0.1, 0.5)
    if options.reference:
        modules.append(subject.plain().to(options.device))
        modules[1].load_state_dict(modules[0].state_dict())

    if options.kind == "blocks":
        shapes = [(options.batch, subject.arguments["channels"], *size)]
    else:
        shapes = [
            (options.batch, channels, -(-size[0] * 8 // stride), -(-size[1] * 8 // stride))
            for channels, stride in zip(options.in_channels, STRIDES[options.output_stride], strict=True)
        ]
    leaves = [torch.randn(shape, device=options.device, requires_grad=True) for shape in shapes]
    inputs: tuple[Any, ...] = (leaves[0],) if options.kind == "blocks" else (leaves,)
    cases = [Case(module, inputs, leaves, options.precision == "bf16", i == 0) for i, module in enumerate(modules)]

    clock = time.process_time if cpu_time(options) else time.perf_counter
    forward = interleaved([case.forward for case in cases], options.repeats, clock)
    both = interleaved([case.both for case in cases], options.repeats, clock)
    rows = []
    for i, case in enumerate(cases):
        compared: dict[str, float] = {}
        if options.reference and i == 0:
            plain = cases[1].forward().double()
            compared = {
                "forward_speedup": statistics.median(b / a for a, b in zip(*forward, strict=True)),
                "both_speedup": statistics.median(b / a for a, b in zip(*both, strict=True)),
                "difference": ((case.forward() - plain).abs().max() / plain.abs().max()).item(),
            }
        rows.append(
            Row(
                subject.name,
                plain=i > 0,
                height=size[0],
                width=size[1],
                parameters=sum(parameter.numel() for parameter in case.module.parameters()),
                gflop=case.gflop(),
                moved_mb=case.moved_mb(),
                forward_ms=statistics.median(forward[i]),
                forward_spread_ms=spread(forward[i]),
                both_ms=statistics.median(both[i]),
                both_spread_ms=spread(both[i]),
                forward_mb=case.peak_mb(case.forward),
                both_mb=case.peak_mb(case.both),
                **compared,
            )
        )
    return rows
