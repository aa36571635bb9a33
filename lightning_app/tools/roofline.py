"""What this machine can do at most: matrix products a second and bytes copied a second, measured."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import torch
from torch.nn import functional as F

from lightning_app.kernels import products
from lightning_app.tools.bench_subject import Row

SIDE: Final = 1024  # of the matrices
COPIED: Final = 64 * 2**20  # bytes
GENERATIONS: Final = {  # vendor, family -> (last model, name), in the order of the models
    ("AuthenticAMD", 23): ((47, "Zen"), (255, "Zen 2")),
    ("AuthenticAMD", 25): ((15, "Zen 3"), (31, "Zen 4"), (95, "Zen 3"), (255, "Zen 4")),
    ("AuthenticAMD", 26): ((255, "Zen 5"),),
    ("GenuineIntel", 6): (
        (84, "before Skylake-SP"),
        (85, "Skylake-SP to Cooper Lake"),
        (142, "Ice Lake and its like"),
        (143, "Sapphire Rapids"),
        (206, "client core"),
        (207, "Emerald Rapids"),
    ),
}


@dataclass(frozen=True)
class Roofline:
    """The two limits; a call takes at least as long as its products at ``gflops``, or its bytes at ``gbs``."""

    gflops: float  # the fastest of PyTorch's ways to multiply matrices and to convolve, in 1e9 operations a second
    gbs: float  # of a copy, 1e9 bytes a second, read and written
    generation: str

    @classmethod
    def measured(cls, device: str, precision: str) -> Self:
        """Of the device, at the threads that are set."""
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = (torch.randn(SIDE, SIDE, device=device, dtype=dtype) for _ in "ab")
        image = torch.randn(1, 128, 56, 56, device=device, dtype=dtype)
        weight = torch.randn(128, 128, 3, 3, device=device, dtype=dtype)
        ways: list[tuple[Callable[[], object], float]] = [
            (lambda: a @ b, 2 * SIDE**3),
            (lambda: F.conv2d(image, weight, padding=1), 2 * 128 * 128 * 9 * 56 * 56),
        ]
        if products.by_onednn(a, b):
            ways.append((lambda: products.matmul(a, b[None]), 2 * SIDE**3))
        source = torch.ones(COPIED // 4, device=device)
        target = torch.empty_like(source)
        with torch.no_grad():
            fastest = max(work / _seconds(way) for way, work in ways)
            copied = 2 * COPIED / _seconds(lambda: target.copy_(source))
        return cls(fastest / 1e9, copied / 1e9, generation() if device == "cpu" else "")

    def with_share(self, row: Row) -> Row:
        """The row with its share: the time that its work takes at least here, over the time that it took."""
        least = max(row.gflop / self.gflops, row.moved_mb * 2**20 / 1e9 / self.gbs)
        return replace(row, share=1e3 * least / row.forward_ms)

    def __str__(self) -> str:
        name = f"{self.generation}: " if self.generation else ""
        return f"{name}products at {self.gflops:.0f} GFLOP/s, copies at {self.gbs:.0f} GB/s"


def _seconds(function: Callable[[], object]) -> float:
    """The fastest of five, after one to warm up."""
    one_core = not torch.cuda.is_available() and torch.get_num_threads() == 1
    clock = time.process_time if one_core else time.perf_counter  # as the blocks are timed
    times = []
    for _ in range(6):
        start = clock()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(clock() - start)
    return min(times[1:])


def generation() -> str:
    """Of the processor, in words where it is known, and its family and model."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().split("\n\n")[0].splitlines() if cpuinfo.is_file() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if not {"vendor_id", "cpu family", "model"} <= facts.keys():
        return platform.machine()
    vendor, family, model = facts["vendor_id"], int(facts["cpu family"]), int(facts["model"])
    known = GENERATIONS.get((vendor, family), ())
    name = next((name for last, name in known if model <= last), "generation unknown")
    return f"{name} (family {family}, model {model}), {torch.backends.cpu.get_cpu_capability()}"
