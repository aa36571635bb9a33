"""Time, memory and arithmetic of a call, for ``contextzoo bench`` and what else measures."""

import copy
import math
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_app.kernels.products import FLOPS


def interleaved(
    functions: Sequence[Callable[[], object]], repeats: int, clock: Callable[[], float]
) -> list[list[float]]:
    """Milliseconds a call, ``repeats`` times for each function in turn, so that a slow spell of the machine hits all.

    Short functions are called as often as fills 10 ms, at most 100 times.
    """

    def milliseconds(function: Callable[[], object], calls: int) -> float:
        _synchronize()
        start = clock()
        for _ in range(calls):
            function()
        _synchronize()
        return (clock() - start) * 1e3 / calls

    for function in functions:
        milliseconds(function, 1)  # allocators, kernels and caches warm up
    calls = [min(100, 1 + int(10 / milliseconds(function, 1))) for function in functions]
    rounds = [[milliseconds(f, n) for f, n in zip(functions, calls, strict=True)] for _ in range(repeats)]
    return [list(times) for times in zip(*rounds, strict=True)]


def peak_mb(function: Callable[[], object], device: torch.device) -> float:
    """Memory of tensors at its highest while ``function`` runs, in MB of 2^20 bytes beyond what was held before.

    On CUDA the allocator's own peak; on the CPU the same figure from the allocator's events. Neither counts the scratch
    memory that libraries take past torch's allocator.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler talks on stderr
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


def exponent(positions: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of log(cost) over log(N), least squares: cost ~ N^exponent."""
    return statistics.linear_regression([math.log(n) for n in positions], [math.log(cost) for cost in costs]).slope


def _attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    """2 per multiply-add of both products: (..., N, d), (..., M, d), (..., M, e)."""
    return 2 * math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


# torch's counter knows the fused attention of GPUs alone
COUNTED = FLOPS | {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}


def gflop(module: nn.Module, *inputs: Any) -> float:
    """Of the forward pass, counted on the CPU: kernels of our own on CUDA are not known to the counter."""
    module = copy.deepcopy(module).cpu().requires_grad_(False)
    inputs = tuple([x.detach().cpu() for x in i] if isinstance(i, list) else i.detach().cpu() for i in inputs)
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
        module(*inputs)
    total: int = counter.get_total_flops()
    return total / 1e9


def spread(times: list[float]) -> float:
    if len(times) < 2:
        return 0.0
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return (high - low) / 2


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_name(device: str) -> str:
    """What the GPU, or the CPU, is called."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
