"""Pages of the site that are made and not written: one for every head, and the table of them all."""

import inspect
import json
import runpy
from collections import defaultdict
from pathlib import Path
from xml.sax.saxutils import escape

import torch
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import zoo
from lightning_app import kernels
from lightning_app.registry import BLOCKS, HEADS, Entry

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WIDTHS = [256, 512, 1024, 2048]  # of a ResNet-50's levels, here at output stride 8 of a 512 x 1024 image
SIZES = [(128, 256), (64, 128), (64, 128), (64, 128)]
COST = "19 classes on the levels of a ResNet-50, output stride 8, one image of 512 x 1024"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name every head's page in the menu."""
    (heads,) = (entry["Heads"] for entry in config.nav or [] if "Heads" in entry)
    heads += [f"heads/{slug}.md" for slug in HEADS]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those that lie in docs/."""
    rows = ["| head | year | parameters | GFLOP | what it does |", "|---|---|---|---|---|"]
    for slug, entry in HEADS.items():
        parameters, work = _cost(slug, entry)
        rows.append(f"| [{entry.cls.__name__}]({slug}.md) | {entry.year} | {parameters} | {work} | {entry.summary} |")
        files.append(File.generated(config, f"heads/{slug}.md", content=_page(slug, entry, parameters, work)))
    text = "\n".join(
        [
            "# Heads",
            "",
            f"{len(HEADS)} heads, each with its paper. Cost: {COST}; GFLOP of the forward pass, 2 per multiply-add.",
            "",
            "`contextzoo heads` prints the list, `--model.head NAME` takes one, `contextzoo bench heads` measures.",
            "",
            *rows,
            "",
        ]
    )
    files.append(File.generated(config, "heads/index.md", content=text))
    files.append(File.generated(config, "rooms.svg", content=draw_rooms()))
    for name in ("SECURITY", "CONTRIBUTING", "CHANGELOG"):
        text = (ROOT / f"{name}.md").read_text().replace("](docs/", "](").replace("](SECURITY.md)", "](security.md)")
        files.append(File.generated(config, f"{name.lower()}.md", content=text))
    return files


def draw_rooms() -> str:
    """The floors in tests/floors.py, as a picture: a room's width goes with its lines of code."""
    house = runpy.run_path(str(ROOT / "tests" / "floors.py"))
    floors = house["FLOORS"]
    sizes = dict.fromkeys(house["FLOOR"], 0)
    for path, module in house["modules"]().items():
        if room := house["room_of"](module):
            sizes[room] += len(path.read_text().splitlines())
    step, height, edge = 44, 34, 60.0
    widest, bottom = edge, step * len(floors) + 10
    lines = []
    for number, floor in enumerate(floors):
        x, y = edge, step * (len(floors) - 1 - number) + 8
        lines.append(f'<text x="14" y="{y + 22}" font-size="13" fill="#666">{number}</text>')
        for room in sorted(floor, key=lambda room: -sizes[room]):
            if not sizes[room]:
                continue
            label = escape(f"{room}  {sizes[room]}")
            side = max(24.0 + 8 * len(label), sizes[room] / 6)
            place = f'x="{x:.0f}" y="{y}" width="{side:.0f}" height="{height}"'
            lines.append(f'<rect {place} rx="5" fill="#d9efec" stroke="#00796b"/>')
            lines.append(f'<text x="{x + 10:.0f}" y="{y + 22}" font-size="14" fill="#123">{label}</text>')
            x += side + 10
        widest = max(widest, x)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {widest:.0f} {bottom}" font-family="sans-serif">'
    paper = f'<rect width="{widest:.0f}" height="{bottom}" fill="#ffffff"/>'
    return "\n".join([head, paper, *lines, "</svg>", ""])


def _page(slug: str, entry: Entry, parameters: str, work: str) -> str:
    name, module = entry.cls.__name__, entry.cls.__module__
    lines = [f"# {name}", "", entry.summary, "", f"Paper: {_link(entry.paper)}, {entry.year}.", ""]
    lines += ["```", f"contextzoo fit -c recipes/camvid_cpu --data.root DIR --model.head {name}", "```", ""]
    lines += ["| | |", "|---|---|", f"| parameters | {parameters} |", f"| GFLOP | {work} |"]
    lines += [f"| {what} | {value} |" for what, value in _measured(slug).items()]
    lines += ["", f"Cost: {COST}.", ""]
    lines += _weights(slug)
    lines += ["## The head", "", f"::: {module}.{name}", "    options: {heading_level: 3}", ""]
    blocks = [each for each in BLOCKS.values() if _uses(entry, each)]
    if blocks:
        lines += ["## Its operator", ""]
    for block in blocks:
        lines += [f"::: {block.cls.__module__}.{block.cls.__name__}", "    options: {heading_level: 3}", ""]
    return "\n".join(lines)


def _cost(slug: str, entry: Entry) -> tuple[str, str]:
    if slug == "smp":  # nine decoders, nine counts
        return "by decoder", "by decoder"
    head = entry.cls(WIDTHS, 19).eval().requires_grad_(False)  # weights that are drawn by looking at them are real
    with FakeTensorMode(allow_non_fake_inputs=True):  # shapes without numbers, on a CPU: autocast knows no meta device
        levels = [torch.empty(1, width, *size) for width, size in zip(WIDTHS, SIZES, strict=True)]
        with kernels.fast(False), FlopCounterMode(display=False) as counter:
            head(levels)
    count = sum(parameter.numel() for parameter in head.parameters())
    return f"{count / 1e6:.1f} M", f"{counter.get_total_flops() / 1e9:.0f}"


def _uses(head: Entry, block: Entry) -> bool:
    """Whether the head's file names the block's class."""
    names = vars(inspect.getmodule(head.cls))
    return any(value is block.cls for value in names.values())


def _link(paper: str) -> str:
    kind, _, number = paper.partition(":")
    return f"[{paper}](https://arxiv.org/abs/{number})" if kind == "arXiv" else paper


def _measured(slug: str) -> dict[str, str]:
    """What docs/results.md and docs/context_probe.md tell of the head."""
    found = {}
    for row in json.loads((DOCS / "results" / "camvid_heads.json").read_text())["heads"]:
        if row["head"] == slug:
            found["CamVid val, mIoU ([results](../results.md))"] = f"{100 * row['mIoU']:.1f}"
    hits: dict[str, list[float]] = defaultdict(list)
    for line in (DOCS / "context_probe.jsonl").read_text().splitlines():
        run = json.loads(line)
        if run["head"] == slug:
            hits[run["mode"]].append(sum(run["hits"]) / sum(run["queries"]))
    for mode, shares in hits.items():
        found[f"[ContextProbe](../context_probe.md), {mode}"] = f"{sum(shares) / len(shares):.2f} (chance 0.25)"
    return found


def _weights(slug: str) -> list[str]:
    entries = [entry for entry in zoo.list_entries() if entry.head == slug]
    if not entries:
        return []
    best = {entry.dataset: entry for entry in sorted(entries, key=lambda entry: entry.figure)}
    rows = [f"| {data} | `{entry.id}` | {entry.figure:.2f} |" for data, entry in sorted(best.items())]
    return [
        f"## Weights: {len(entries)}",
        "",
        f"`contextzoo zoo list --head {slug}`; the best of each dataset, by its single-scale mIoU:",
        "",
        "| dataset | id | mIoU |",
        "|---|---|---|",
        *rows,
        "",
    ]
