"""``contextzoo heads`` and ``contextzoo blocks``: the registries as tables."""

import torch
from torch import nn

from lightning_app.registry import BLOCKS, HEADS
from lightning_app.util.errors import InputError
from lightning_app.util.tables import print_table

RESNET50 = [256, 512, 1024, 2048]
COLUMNS = ("slug", "class", "paper", "year", "parameters", "what it does")


def main(args: list[str]) -> int:
    """Print the registry that the first argument names."""
    kind, *rest = args
    if rest in (["-h"], ["--help"]):
        print(f"usage: contextzoo {kind}\n\nLists every one with its paper and parameters.")
        return 0
    if rest:
        raise InputError(f"contextzoo {kind} takes no arguments, got {' '.join(rest)}")
    heads = kind == "heads"
    rows = []
    for slug, entry in (HEADS if heads else BLOCKS).items():
        if slug == "smp":  # nine decoders, nine counts, and a library that takes seconds to import
            parameters = "by decoder"
        else:
            with torch.device("meta"):
                parameters = _millions(entry.cls(RESNET50, 19) if heads else entry.cls(512))
        rows.append((slug, entry.cls.__name__, entry.paper, str(entry.year), parameters, entry.summary))
    size = "on the levels of a ResNet-50, 19 classes" if heads else "for 512 channels"
    print_table(COLUMNS, rows, title=f"{len(rows)} {kind}; parameters {size}", right=("parameters",))
    return 0


def _millions(module: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.2f} M"
