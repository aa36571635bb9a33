"""Write parameters and GFLOP into the zoo's index, for weights of segmentation whose entries lack them.

    python scripts/count_costs.py

Both are of the network as it predicts, without auxiliary heads. GFLOP are of one image of the training crops' size:
convolutions and matrix products, 2 per multiply-add, in the papers' plain form. Nothing is computed or downloaded: the
networks stand on PyTorch's meta device, which knows shapes alone. Run it after the import scripts, which write entries
anew.
"""

import json
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_app import kernels
from lightning_app.backbones.base import Backbone
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.weights import torchvision
from lightning_app.weights.load import load
from lightning_app.weights.openmmlab import convert
from lightning_app.weights.openmmlab.backbones import new_backbone
from lightning_app.weights.openmmlab.published import upstream_config
from lightning_app.weights.parts import new_segmentor
from zoo import ZooEntry, index
from zoo.cache import find
from zoo.datasets import datasets
from zoo.tasks.semantic import details_of
from zoo.toml import text_of

BACKBONES: dict[str, Backbone] = {}  # many entries have the same
LEVELS: dict[tuple[Backbone, tuple[int, int]], tuple[int, list[torch.Tensor]]] = {}


def shared_backbone(config: dict[str, object], neck: dict[str, object] | None) -> Backbone:
    key = json.dumps([config, neck])
    if key not in BACKBONES:
        BACKBONES[key] = new_backbone(config, neck)
    return BACKBONES[key]


class NoAutocast(nullcontext[None]):
    """In place of autocast, which does not know the meta device."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()


def network_of(entry: ZooEntry) -> Segmentor | None:
    """The entry's network, without numbers; None where only its file tells what it is, and that is not here."""
    if entry.format == "openmmlab":
        with torch.device("meta"):
            return (
                convert.new_segmentor({**upstream_config(entry), "auxiliary_head": None}).eval().requires_grad_(False)
            )
    if entry.format == "torchvision":
        with torch.device("meta"):
            return new_segmentor(torchvision.parts_of(entry), len(datasets()[entry.dataset].classes), entry.id).eval()
    network: Segmentor | None = load(entry.id).requires_grad_(False).to("meta") if find(entry) else None
    return network


def parameters_of(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def levels_of(network: Segmentor, crop: tuple[int, int]) -> tuple[int, list[torch.Tensor]]:
    """FLOP of the backbone, and the levels that it gives."""
    key = network.backbone, crop
    if key not in LEVELS:
        with FlopCounterMode(display=False) as counter:
            levels = network.features(torch.empty(1, 3, *crop, device="meta"))
        LEVELS[key] = counter.get_total_flops(), levels
    return LEVELS[key]


def costs(network: Segmentor, crop: tuple[int, int]) -> tuple[int, float]:
    """Parameters, and GFLOP at that size."""
    flop, levels = levels_of(network, crop)
    with FlopCounterMode(display=False) as counter:
        network.head(levels)
    return parameters_of(network.backbone, network.head), (flop + counter.get_total_flops()) / 1e9


def with_costs(lines: list[str], found: dict[str, tuple[int, float]]) -> Iterator[str]:
    """The lines of an index file with those figures in front of each address."""
    id = ""
    for line in lines:
        if line.startswith("["):
            id = line.removeprefix("[entry.").rstrip("]\n") if line.startswith("[entry.") else ""
        if line.startswith("url = ") and id in found:
            parameters, gflop = found[id]
            yield f"parameters = {parameters}\ngflop = {gflop:.{3 if gflop < 10 else 1}f}\n"
        yield line


@torch.no_grad()
def main() -> None:
    kernels.fast(False)
    torch.autocast = NoAutocast  # type: ignore[assignment, misc]
    convert.new_backbone = shared_backbone  # type: ignore[assignment, attr-defined]
    for head in index.heads("semantic"):
        found = {}
        for entry in index.list_entries(task="semantic", head=head):
            if entry.parameters is None and (network := network_of(entry)):
                found[entry.id] = costs(network, details_of(entry).crop)
        path = index.file_of("semantic", head)
        path.write_text("".join(with_costs(text_of(path).splitlines(keepends=True), found)))
        print(f"{path.name}: {len(found)} counted", flush=True)
    index.read.cache_clear()
    print(f"{len(index.check())} entries ok")


if __name__ == "__main__":
    main()
