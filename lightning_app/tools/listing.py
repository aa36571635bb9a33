"""``contextzoo heads`` and ``contextzoo blocks``: the registries as tables."""

import ast
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from lightning_app.app import own_modules
from lightning_app.registry import BLOCKS, HEADS, Entry
from lightning_app.util.errors import InputError
from lightning_app.util.tables import print_table

PACKAGE: Final = Path(__file__).parents[1]
COUNTS: Final = Path(__file__).with_name("parameters.json")  # by scripts/count_parameters.py: kind -> slug -> words
RESNET50: Final = [256, 512, 1024, 2048]
COLUMNS: Final = ("slug", "class", "paper", "year", "parameters", "what it does")


def main(args: list[str]) -> int:
    """Print the registry that the first argument names."""
    kind, *rest = args
    if rest in (["-h"], ["--help"]):
        print(f"usage: contextzoo {kind}\n\nLists every one with its paper and parameters.")
        return 0
    if rest:
        raise InputError(f"contextzoo {kind} takes no arguments, got {' '.join(rest)}")
    rows = counted(kind) if own_modules.names() else read(kind) or counted(kind)
    size = "on the levels of a ResNet-50, 19 classes" if kind == "heads" else "for 512 channels"
    print_table(COLUMNS, rows, title=f"{len(rows)} {kind}; parameters {size}", right=("parameters",))
    return 0


def read(kind: str) -> list[list[str]] | None:
    """The rows by the text of the modules and the parameters that were counted before: importing torch takes seconds.

    None where one is new, and not counted yet.
    """
    counts: dict[str, str] = json.loads(COUNTS.read_text())[kind]
    rows = [row for path in sorted((PACKAGE / kind).glob("[a-z]*.py")) for row in _registered(path, kind)]
    if any(slug not in counts for slug, *_ in rows):
        return None
    return [[slug, name, paper, year, counts[slug], summary] for slug, name, paper, year, summary in sorted(rows)]


def _registered(path: Path, kind: str) -> Iterator[tuple[str, str, str, str, str]]:
    """Slug, class, paper, year and summary of each class that a module registers."""
    for node in (each for each in ast.parse(path.read_text()).body if isinstance(each, ast.ClassDef)):
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == f"{kind.upper()}.register":
                said = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                paper, year = str(said["paper"] or "-"), str(said["year"] or "-")
                yield ast.literal_eval(call.args[0]), node.name, paper, year, summary


def counted(kind: str) -> list[list[str]]:
    """The rows by the registry, whose classes are built to count their parameters."""
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
