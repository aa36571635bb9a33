"""The list of weights, and all that is known of some, as people read them."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from zoo import cache, header
from zoo.datasets import Dataset, datasets
from zoo.details import details_of
from zoo.entry import ZooEntry
from zoo.errors import ZooError
from zoo.toml import suggest
from zoo.values import call

_OTHER_SORTS: Final[dict[str, Callable[[ZooEntry], float | str]]] = {
    "params": lambda entry: entry.parameters or float("inf"),
    "gflop": lambda entry: entry.gflop or float("inf"),
    "memory": lambda entry: entry.memory_gb or float("inf"),
    "id": lambda entry: entry.id,
}


def sort_entries(entries: list[ZooEntry], by: str) -> None:
    """Order by a figure, the best first; by memory or id, the least first.

    Raises:
        ZooError: none of the entries has such a figure.
    """
    figures = {_typed(name): name for entry in entries for name in entry.metrics}
    if by in _OTHER_SORTS:
        entries.sort(key=_OTHER_SORTS[by])
    elif _typed(by) in figures:
        entries.sort(key=lambda entry: -entry.metrics.get(figures[_typed(by)], 0.0))
    else:
        known = [*figures, *_OTHER_SORTS]
        raise ZooError(f'Unknown --sort "{by}".{suggest(by, known)} Known: {", ".join(known)}')


def _typed(figure: str) -> str:
    """A figure's name as it is typed: miou-ms is mIoU_ms."""
    return figure.lower().replace("_", "-")


def print_list(entries: Sequence[ZooEntry]) -> None:
    """A line for each entry, tab-separated; on a terminal a table for each task, without what is unknown of all."""
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(_row(entry)) + "\n" for entry in entries)
        return
    for task in sorted({entry.task for entry in entries}):
        _print_table(task, [entry for entry in entries if entry.task == task])


def _columns(task: str) -> tuple[str, str]:
    """The two figures of a task that stand in the list."""
    first, second, *_ = (*details_of(task).metrics, "", "")
    return first, second


def _row(entry: ZooEntry) -> list[str]:
    figures = [entry.figure, entry.metrics.get(_columns(entry.task)[1])]
    return [
        entry.id,
        *("-" if value is None else f"{value:.2f}" for value in figures),
        entry.dataset,
        entry.backbone.name,
        _count(entry),
        "-" if entry.gflop is None else f"{entry.gflop:.1f}",
        "-" if entry.memory_gb is None else f"{entry.memory_gb:g}",
        "yes" if cache.find(entry) else "repository" if cache.out_of_reach(entry) else "-",
    ]


def _count(entry: ZooEntry) -> str:
    """Parameters, in words: 4.5M, or 42k where they are few."""
    if entry.parameters is None:
        return "-"
    return f"{entry.parameters / 1e6:.1f}M" if entry.parameters >= 1e5 else f"{entry.parameters / 1e3:.0f}k"


def _print_table(task: str, entries: Sequence[ZooEntry]) -> None:
    titles = details_of(task).metrics
    figures = [titles.get(name, "figure") for name in _columns(task)]
    columns = ("id", *figures, "dataset", "backbone", "params", "GFLOP", "GB to train", "here")
    rows = [_row(entry) for entry in entries]
    caption = f"{len(rows)} of the zoo's weights" + ("" if task == "semantic" else f", task {task}")
    if any(row[-1] == "repository" for row in rows):
        caption += "; some ship with the repository, which is not here (contextzoo zoo show ID)"
    known = [place for place in range(len(columns)) if any(row[place] != "-" for row in rows)]
    _print_fitted(
        [columns[place] for place in known],
        [[row[place] for place in known] for row in rows],
        caption,
        spare=("GB to train", "backbone", "dataset", "GFLOP", figures[1], "params"),
    )


def print_best(front: Sequence[ZooEntry], among: int) -> None:
    """The weights that no others beat, the smallest first; tab-separated where the output is no terminal."""
    rows = [[entry.id, f"{entry.figure:.2f}", _count(entry), f"{entry.gflop:.1f}"] for entry in front]
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(row) + "\n" for row in rows)
        return
    figure = next(iter(front[0].details.metrics.values()), "figure")
    caption = f"of {among}: no other has as much {figure} with as few parameters and GFLOP (of one training crop)"
    _print_fitted(["id", figure, "params", "GFLOP"], rows, caption)


def _print_fitted(columns: list[str], rows: list[list[str]], caption: str, spare: Sequence[str] = ()) -> None:
    """A table on a terminal; where it is too wide, the spare columns go, in their order, and then ids are folded."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    widths = {name: max(len(text) for text in (name, *cells)) for name, *cells in zip(columns, *rows, strict=True)}
    for name in spare:
        if sum(widths.values()) + 2 * (len(widths) - 1) > console.width:
            widths.pop(name, None)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption=caption)
    for name in widths:
        table.add_column(
            name, justify="left" if name in ("id", "dataset", "backbone", "here") else "right", overflow="fold"
        )
    for row in rows:
        table.add_row(*(text for name, text in zip(columns, row, strict=True) if name in widths))
    console.print(table)


def print_json(entries: Sequence[ZooEntry]) -> None:
    """Everything that is known of each entry."""
    print(json.dumps([entry.as_dict() for entry in entries], indent=1))


def print_entry(entry: ZooEntry) -> None:
    """All that is known of an entry, a line for each fact."""
    lines = facts(entry)
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}")


def facts(entry: ZooEntry) -> dict[str, str]:
    """All that is known of an entry, each fact by its name; what a file tells of itself comes from there."""
    here = cache.find(entry)
    told = header.description(here) if here and entry.format == "safetensors" else {}
    return {
        "id": entry.id,
        "task": entry.task,
        "head": entry.name,
        **_parts(entry, header.parts(told), here),
        "paper": entry.paper,
        **_dataset(datasets()[entry.dataset]),
        **_figures(entry, entry.details.protocol(told)),
        **_training(entry),
        **_file(entry, here),
    }


def _parts(entry: ZooEntry, told: dict[str, tuple[str, dict[str, Any]]], here: Path | None) -> dict[str, str]:
    """The parts of the model: of our own weights as their file tells, of others as the index does."""
    if entry.format == "openmmlab":
        return entry.details.lines() | {"backbone": str(entry.backbone)}
    if entry.format == "torchvision":
        return {"decode head": f"{entry.name}, as in torchvision's {entry.config}", "backbone": str(entry.backbone)}
    if "backbone" not in told:
        tells = "as the file tells" + ("" if here else " once it is here")
        return {"decode head": f"{entry.name}, {tells}", "backbone": f"{entry.backbone}, {tells}"}
    names = {"head": "decode head", "auxiliary": "auxiliary head"}
    return entry.details.lines() | {names.get(part, part): call(*spec) for part, spec in reversed(told.items())}


def _dataset(dataset: Dataset) -> dict[str, str]:
    kind, names = ("keypoints", dataset.keypoints) if dataset.keypoints else ("classes", dataset.classes)
    count = f"{len(names)} {kind}" if len(names) != 1 else {"keypoints": "1 keypoint", "classes": "1 class"}[kind]
    title = dataset.title if count in dataset.title else f"{dataset.title}, {count}"
    return {"dataset": title, kind: ", ".join(names)}


def _figures(entry: ZooEntry, protocol: str) -> dict[str, str]:
    """Each figure; beside the first how it was measured, and by whom."""
    first, *others = [(entry.details.metrics.get(name, name), value) for name, value in entry.metrics.items()]
    how = ", ".join(filter(None, (entry.split, protocol)))
    return {first[0]: f"{first[1]:.2f} on {how} ({entry.metrics_source})"} | {n: f"{v:.2f}" for n, v in others}


def _training(entry: ZooEntry) -> dict[str, str]:
    length = f"{entry.epochs} epochs" if entry.iterations is None else f"{entry.iterations} steps"
    memory = "unknown" if entry.memory_gb is None else f"{entry.memory_gb:g} GB on each device"
    optimizer = "" if entry.optimizer is None else f", {entry.optimizer}"
    optimizer += "" if entry.lr is None else f" {entry.lr:g}"
    size = {} if entry.parameters is None else {"parameters": f"{entry.parameters:,}"}
    if entry.gflop is not None:
        size["GFLOP"] = f"{entry.gflop:g} of {entry.details.looked_at()}, 2 per multiply-add"
    return {
        **size,
        "training": f"{length} of {entry.batch} {entry.details.training()}{optimizer}",
        "training memory": memory,
    }


def _file(entry: ZooEntry, here: Path | None) -> dict[str, str]:
    dataset = datasets()[entry.dataset]
    how = cache.NOT_HERE if cache.out_of_reach(entry) else f"contextzoo zoo download {entry.id}"
    digits = "" if len(entry.sha256) == 64 else " (the first 8 digits, all that is published)"
    return {
        "file": entry.url,
        **({"shared with others": ", ".join(entry.shared)} if entry.shared else {}),
        "mirrors": ", ".join(entry.mirrors) or "none",
        "size": "unknown" if entry.size is None else f"{entry.size} bytes",
        "sha256": f"{entry.sha256}{digits}",
        "format": entry.format + (f", config {entry.config}" if entry.config else ""),
        "code licence": entry.code_licence,
        "weights licence": entry.weights_licence,
        "training data": entry.data_licence + (f" ({dataset.url})" if dataset.url else ""),
        "commercial use": entry.commercial,
        "here": str(here or f"no ({how})"),
        "measure again": f"contextzoo test --weights {entry.id} --data {dataset.typed}"
        + (" --data.root DIR" if dataset.url else ""),
    }
