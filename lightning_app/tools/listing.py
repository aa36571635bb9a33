"""``contextzoo heads`` and ``contextzoo blocks``: the registries as tables."""

import importlib.util
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from lightning_app.app import own_modules
from lightning_app.registry import BLOCKS, HEADS, Entry
from lightning_app.util.errors import InputError
from lightning_app.util.remembered import cache_folder, recall, remember
from lightning_app.util.tables import print_table

PACKAGE = Path(__file__).parents[1]
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
    rows = _rows(kind)
    size = "on the levels of a ResNet-50, 19 classes" if kind == "heads" else "for 512 channels"
    print_table(COLUMNS, rows, title=f"{len(rows)} {kind}; parameters {size}", right=("parameters",))
    return 0


def _rows(kind: str) -> list[list[str]]:
    """Remembered until a file of this program changes: building each one to count its parameters takes seconds."""
    memory = cache_folder("listings") / f"{kind}-{_fingerprint()}.json"
    if own_modules.names():  # what these register is there in this process alone
        return _counted(kind)
    known = recall(memory)
    if isinstance(known, list) and all(isinstance(row, list) and len(row) == len(COLUMNS) for row in known):
        return [[str(cell) for cell in row] for row in known]
    rows = _counted(kind)
    remember(memory, rows)
    return rows


def _fingerprint() -> str:
    """Of everything that a listing follows from."""
    files = sorted(PACKAGE.rglob("*.py"))
    states = [(file.relative_to(PACKAGE).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    torch = importlib.util.find_spec("torch")
    return sha256(repr([states, torch and torch.origin]).encode()).hexdigest()[:16]


def _counted(kind: str) -> list[list[str]]:
    registry: Mapping[str, Entry] = HEADS if kind == "heads" else BLOCKS
    rows = []
    for slug, entry in registry.items():
        # smp: nine decoders, nine counts, and a library that takes seconds to import
        parameters = "by decoder" if slug == "smp" else _parameters(entry, kind == "heads")
        rows.append([slug, entry.cls.__name__, entry.paper or "-", str(entry.year or "-"), parameters, entry.summary])
    return rows


def _parameters(entry: Entry, is_head: bool) -> str:
    import torch  # not before it is needed

    try:
        with torch.device("meta"):
            module = entry.cls(RESNET50, 19) if is_head else entry.cls(512)
    except Exception as error:  # of a class of the user's own, which must not hide the others
        print(f"{entry.slug} cannot be built without further arguments: {error}", file=sys.stderr)
        return "-"
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.2f} M"
