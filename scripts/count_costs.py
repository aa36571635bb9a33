"""Write parameters and GFLOP into the zoo's index, for weights whose entries lack them.

    python scripts/count_costs.py

Both are those of ``lightning_app/weights/costs.py``; published networks stand on PyTorch's meta device, so nothing is
downloaded. Run it after the import scripts, which write entries anew.
"""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict

import torch
from torch import nn

from lightning_app.backbones.base import Backbone
from lightning_app.tasks.instance.weights import InstanceFacts
from lightning_app.tasks.instance.weights import parts_of as detector_parts
from lightning_app.weights import torchvision
from lightning_app.weights.costs import costs_of
from lightning_app.weights.facts import facts_of
from lightning_app.weights.load import load
from lightning_app.weights.openmmlab import convert, pose
from lightning_app.weights.openmmlab.backbones import new_backbone
from lightning_app.weights.openmmlab.published import upstream_config
from lightning_app.weights.parts import new_segmentor
from zoo import ZooEntry, index
from zoo.cache import find
from zoo.datasets import datasets
from zoo.tasks.instance import Details as InstanceDetails
from zoo.toml import text_of

BACKBONES: dict[str, Backbone] = {}  # many entries have the same


def shared_backbone(config: dict[str, object], neck: dict[str, object] | None) -> Backbone:
    key = json.dumps([config, neck])
    if key not in BACKBONES:
        BACKBONES[key] = new_backbone(config, neck)
    return BACKBONES[key]


class NoAutocast(nullcontext[None]):
    """In place of autocast, which does not know the meta device."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()


def network_of(entry: ZooEntry) -> nn.Module | None:
    """The entry's network; None where only its file tells what it is, and that is not here."""
    if entry.format == "safetensors":
        found: nn.Module | None = load(entry.id) if find(entry) else None
        return found
    with torch.device("meta"):
        classes = datasets()[entry.dataset].classes
        if entry.format == "torchvision":
            return new_segmentor(torchvision.parts_of(entry), len(classes), entry.id)
        if entry.task == "pose":
            return pose.new_estimator(pose.upstream_config(entry))
        if isinstance(entry.details, InstanceDetails):
            facts = InstanceFacts(classes, entry.details.detector != "faster-rcnn", entry.details.image_size)
            return facts.network(detector_parts(entry), entry.id)
        return convert.new_segmentor({**upstream_config(entry), "auxiliary_head": None})


def with_costs(lines: list[str], found: dict[str, dict[str, int | float]]) -> Iterator[str]:
    """The lines of an index file with those figures in front of each address."""
    id = ""
    for line in lines:
        if line.startswith("["):
            id = line.removeprefix("[entry.").rstrip("]\n") if line.startswith("[entry.") else ""
        if line.startswith("url = ") and id in found:
            yield from (f"{name} = {value}\n" for name, value in found[id].items())
        yield line


def main() -> None:
    torch.autocast = NoAutocast  # type: ignore[assignment, misc]
    convert.new_backbone = shared_backbone  # type: ignore[assignment, attr-defined]
    for task in index.tasks():
        for head in index.heads(task):
            found = {}
            for entry in index.list_entries(task=task, head=head):
                if entry.parameters is None and (network := network_of(entry)):
                    found[entry.id] = costs_of(network, facts_of(task), asdict(entry.details))
            path = index.file_of(task, head)
            path.write_text("".join(with_costs(text_of(path).splitlines(keepends=True), found)))
            print(f"{path.name}: {len(found)} counted", flush=True)
    index.read.cache_clear()
    print(f"{len(index.check())} entries ok")


if __name__ == "__main__":
    main()
