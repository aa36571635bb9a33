"""``contextzoo bench models``: whole networks of the zoo as published code computes them, and after ``.fast()``."""

import argparse
import copy
import json
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

import zoo
from lightning_app import kernels
from lightning_app.kernels.half import has_bfloat16
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.tools.bench_timing import device_name, interleaved
from lightning_app.tools.roofline import Roofline
from lightning_app.util.errors import InputError
from lightning_app.util.files import replacing
from lightning_app.util.tables import print_table
from lightning_app.weights.load import load
from lightning_app.weights.openmmlab.convert import new_segmentor
from lightning_app.weights.openmmlab.published import upstream_config
from zoo import ZooEntry, ZooError
from zoo.cache import find

FIVE: Final = (
    "ccnet_r50-d8_ade20k-512x512_160k",
    "deeplabv3plus_r101-d8_ade20k-512x512_160k",
    "upernet_swin-t_ade20k-512x512_160k",
    "upernet_convnext-t_ade20k-512x512_160k",
    "segformer_mit-b0_ade20k-512x512_160k",
)


@dataclass(frozen=True)
class Row:
    """One network at one size: plain is fp32, contiguous, eager, with the papers' own form of every operator."""

    name: str
    height: int
    width: int
    weights: str  # "published", or "drawn" where the file is not here
    plain_ms: float
    fp32_speedup: float
    fp32_same: float  # share of pixels that keep their label
    bf16_speedup: float | None = None
    bf16_same: float | None = None


def models(options: argparse.Namespace) -> int:
    """Measure and show them."""
    roofline = Roofline.measured(options.device, "fp32")
    rows = []
    for id in options.names or FIVE:
        network, weights = _network(id, options.device)
        for size in options.sizes:
            rows.append(_measure(id, network, weights, size, options))
            print(f"[{len(rows)}] {id}: {rows[-1].plain_ms:.0f} ms plain", flush=True)
    print(f"{device_name(options.device)}, {roofline}, threads: {options.threads}, torch {torch.__version__}")
    print("plain: fp32, contiguous, eager; same: share of pixels with the plain network's label")
    cells = [
        (
            row.name,
            f"{row.height}x{row.width}",
            row.weights,
            f"{row.plain_ms:.0f}",
            f"{row.fp32_speedup:.2f}x",
            f"{row.fp32_same:.4%}",
            "-" if row.bf16_speedup is None else f"{row.bf16_speedup:.2f}x",
            "-" if row.bf16_same is None else f"{row.bf16_same:.2%}",
        )
        for row in rows
    ]
    numbers = ("plain ms", "fp32", "same", "bf16", "same ")
    print_table(("id", "image", "weights", *numbers), cells, right=numbers)
    if options.json:
        with replacing(options.json) as path:
            told = {"machine": device_name(options.device), "roofline": asdict(roofline), "torch": torch.__version__}
            path.write_text(json.dumps({"settings": told, "rows": [asdict(row) for row in rows]}, indent=1))
        print(f"Wrote {options.json}")
    return 0


def _network(id: str, device: str) -> tuple[Segmentor, str]:
    """The network, with its weights where the file is on this machine."""
    try:
        entry: ZooEntry = zoo.get(id)
    except ZooError as error:
        raise InputError(str(error)) from None
    if entry.task != "semantic":
        raise InputError(f"{id} is of the task {entry.task}: bench models measures those of semantic")
    torch.manual_seed(0)
    if find(entry) or entry.format != "openmmlab":
        return load(id, device=device), "published"
    network = new_segmentor({**upstream_config(entry), "auxiliary_head": None}).eval()
    return network.to(device), "drawn"


def _measure(id: str, network: Segmentor, weights: str, size: tuple[int, int], options: argparse.Namespace) -> Row:
    coarse = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    image = F.interpolate(coarse, size, mode="bicubic").clamp(0, 1).to(options.device)
    halves = (False, True) if has_bfloat16(image.device) else (False,)
    faster = [copy.deepcopy(network).fast(half=half) for half in halves]

    @torch.inference_mode()
    def plain() -> Tensor:
        with kernels.fast(False):
            logits: Tensor = network(image)
        return logits

    def fast(variant: Segmentor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = variant(image)
        return logits

    clock = time.process_time if options.device == "cpu" and options.threads == 1 else time.perf_counter
    calls = [plain, *(lambda variant=variant: fast(variant) for variant in faster)]
    times = interleaved(calls, options.repeats, clock)
    labels = plain().argmax(1)
    speedups = [median(a / b for a, b in zip(times[0], column, strict=True)) for column in times[1:]]
    same = [(fast(variant).argmax(1) == labels).float().mean().item() for variant in faster]
    found = [value for pair in zip(speedups, same, strict=True) for value in pair]  # in the order of Row's last fields
    return Row(id, *size, weights, median(times[0]), *found)
