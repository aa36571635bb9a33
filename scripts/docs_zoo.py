"""The zoo's page of the site, made from its index: tables that the browser sorts and searches, a card in each row."""

from collections.abc import Sequence
from html import escape

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import zoo
from zoo import ZooEntry, show
from zoo.datasets import datasets
from zoo.details import details_of

LEFT_OUT = ("here", "id", "classes", "keypoints")  # of one machine, or in the row, or long
TITLES = {"semantic": "Classes of pixels", "instance": "Objects", "pose": "Keypoints"}
HEAD = """---
hide: [navigation, toc]
---

# Zoo

{count} sets of weights: those that OpenMMLab and torchvision published, read and verified here, and those trained here.
A click on a column sorts, a click on an id opens its card; parameters and GFLOP are of the network as it predicts,
GFLOP of one training crop, of detectors of 800x1280 pixels, 1000 proposals and the masks of 100, 2 per multiply-add.
`contextzoo zoo list` and `contextzoo zoo best --dataset ade20k --max-params 30M` answer the same in a terminal,
`contextzoo segment photo.jpg --weights ID` uses one.

<input id="zoo-search" type="search" placeholder="words of an id, a dataset, a backbone ..."
 style="width: 100%; padding: .5em; border: 1px solid;">

<style>
table.zoo { width: 100%; font-size: .68rem; border-collapse: collapse; }
table.zoo thead th { text-align: left; cursor: pointer; border-bottom: 1px solid; }
table.zoo td { vertical-align: top; padding: .15em .4em; }
table.zoo td[data-value] { text-align: right; }
table.zoo button { font: inherit; text-align: left; cursor: pointer; color: var(--md-typeset-a-color, inherit); }
table.card th { text-align: left; white-space: nowrap; padding-right: 1em; font-weight: normal; opacity: .7; }
table.card td { overflow-wrap: anywhere; text-align: left; }
</style>
"""
SCRIPT = """
<script>
for (const table of document.querySelectorAll("table.zoo"))
  table.tHead.querySelectorAll("th").forEach((title, column) =>
    title.addEventListener("click", () => {
      const down = title.dataset.sorted !== "down";
      title.dataset.sorted = down ? "down" : "up";
      const cell = entry => entry.rows[0].cells[column];
      const numbers = "value" in cell(table.tBodies[0]).dataset;
      const key = entry => numbers ? parseFloat(cell(entry).dataset.value || "NaN") : cell(entry).textContent;
      const order = (a, b) =>
        Number.isNaN(a) ? 1 : Number.isNaN(b) ? -1 : a === b ? 0 : (a < b) === (down === numbers) ? 1 : -1;
      table.append(...[...table.tBodies].sort((a, b) => order(key(a), key(b))));
    }));
document.querySelectorAll("table.zoo button").forEach(button =>
  button.addEventListener("click", () => {
    const card = button.closest("tr").nextElementSibling;
    card.hidden = !card.hidden;
    history.replaceState(null, "", "#" + button.closest("tbody").id);
  }));
document.getElementById("zoo-search").addEventListener("input", event => {
  const words = event.target.value.toLowerCase().split(" ").filter(word => word);
  for (const entry of document.querySelectorAll("table.zoo > tbody"))
    entry.hidden = !words.every(word => entry.dataset.words.includes(word));
});
const open = () => {
  const entry = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (entry && entry.matches("table.zoo > tbody")) { entry.rows[1].hidden = false; entry.scrollIntoView(); }
};
addEventListener("hashchange", open);
open();
</script>
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to those that lie in docs/."""
    entries = zoo.list_entries()
    tasks = [task for task in TITLES if any(entry.task == task for entry in entries)]
    parts = [HEAD.replace("{count}", str(len(entries)))]
    parts += [section(task, [entry for entry in entries if entry.task == task]) for task in tasks]
    files.append(File.generated(config, "zoo.md", content="\n".join([*parts, SCRIPT])))
    return files


def section(task: str, entries: Sequence[ZooEntry]) -> str:
    """The weights of a task."""
    figures = list(details_of(task).metrics.items())[:2]
    costs = any(entry.parameters for entry in entries)
    titles = [
        "id",
        *(title for _, title in figures),
        *(("M params", "GFLOP") if costs else ()),
        "dataset",
        "commercial",
    ]
    rows = [row(entry, [name for name, _ in figures], costs) for entry in entries]
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    table = f'<table class="zoo"><thead><tr>{head}</tr></thead>\n{"".join(rows)}</table>'
    return f"## {TITLES[task]}: {len(entries)}\n\n{table}\n"


def row(entry: ZooEntry, figures: Sequence[str], costs: bool) -> str:
    """A row with its card; the id is its anchor."""
    numbers: list[tuple[float | None, str]] = [(entry.metrics.get(name), ".2f") for name in figures]
    if costs:
        numbers += [(entry.parameters and entry.parameters / 1e6, ".1f"), (entry.gflop, ".1f")]
    cells = [
        f'<td data-value="{value}">{value:{form}}</td>' if value is not None else '<td data-value="">-</td>'
        for value, form in numbers
    ]
    title = datasets()[entry.dataset].title
    cells += [f"<td>{escape(title)}</td>", f"<td>{entry.commercial}</td>"]
    words = escape(f"{entry.id} {entry.name} {title} {entry.backbone.name}".lower(), quote=True)
    name = f"<td><button>{escape(entry.id)}</button></td>"
    card = f'<tr hidden><td colspan="{len(cells) + 1}">{facts(entry)}</td></tr>'
    return f'<tbody id="{escape(entry.id)}" data-words="{words}"><tr>{name}{"".join(cells)}</tr>{card}</tbody>\n'


def facts(entry: ZooEntry) -> str:
    """The card: what ``contextzoo zoo show`` tells, with addresses to follow."""
    lines = [
        f"<tr><th>{escape(name)}</th><td>{linked(value)}</td></tr>"
        for name, value in show.facts(entry).items()
        if name not in LEFT_OUT
    ]
    return f'<table class="card">{"".join(lines)}</table>'


def linked(value: str) -> str:
    """The text, as a link where it is an address."""
    text = escape(value)
    return (
        f'<a href="{escape(value, quote=True)}">{text}</a>'
        if value.startswith("https://") and " " not in value
        else text
    )
