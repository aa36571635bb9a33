"""``contextzoo heads`` and ``contextzoo blocks``: the registries as tables."""

import sys

import torch

from lightning_app.registry import BLOCKS, HEADS, Entry
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
        # smp: nine decoders, nine counts, and a library that takes seconds to import
        parameters = "by decoder" if slug == "smp" else _parameters(entry, heads)
        rows.append((slug, entry.cls.__name__, entry.paper or "-", str(entry.year or "-"), parameters, entry.summary))
    size = "on the levels of a ResNet-50, 19 classes" if heads else "for 512 channels"
    print_table(COLUMNS, rows, title=f"{len(rows)} {kind}; parameters {size}", right=("parameters",))
    return 0


def _parameters(entry: Entry, is_head: bool) -> str:
    try:
        with torch.device("meta"):
            module = entry.cls(RESNET50, 19) if is_head else entry.cls(512)
    except Exception as error:  # of a class of the user's own, which must not hide the others
        print(f"{entry.slug} cannot be built without further arguments: {error}", file=sys.stderr)
        return "-"
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.2f} M"
