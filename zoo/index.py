"""The index: entries read from ``index/<task>/<head>.toml`` and checked."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from zoo.cache import find
from zoo.datasets import ROOT, backbones, datasets, lookup, mirrors_of, read_backbone
from zoo.details import details_of
from zoo.entry import FIELDS, PERMISSIVE, ZooEntry
from zoo.errors import ZooError, shown
from zoo.toml import line_of, suggest, text_of
from zoo.toml import parse as parse_toml
from zoo.values import FieldError, unfit

INDEX: Final = ROOT / "index"
_OF_FILE: Final = frozenset({"id", "task", "head", "name", "paper"})  # told by the file, not by an entry's table
_DERIVED: Final = frozenset({"data_licence", "commercial", "details"})  # told by the dataset, or made of other keys
_SHARED: Final = FIELDS.keys() - _OF_FILE - _DERIVED


def tasks() -> list[str]:
    """Tasks that have weights."""
    return sorted({path.parent.name for path in INDEX.glob("*/*.toml")})


def heads(task: str | None = None) -> list[str]:
    """Slugs of all heads that have weights, of one task or of any."""
    return sorted({path.stem for path in INDEX.glob(f"{task or '*'}/*.toml")})


def list_entries(
    *,
    task: str | None = None,
    head: str | None = None,
    dataset: str | None = None,
    backbone: str | None = None,
    min_miou: float | None = None,
    commercial: bool = False,
    local: bool = False,
    max_parameters: float | None = None,
    max_gflop: float | None = None,
) -> list[ZooEntry]:
    """Entries that meet every condition given, in the order of the index.

    Upper case in names, and blanks around them, do not matter.

    Args:
        task: such as ``semantic``; None is every task.
        head: slug of the head (``nonlocal_net``), or its class (``NonLocal``).
        dataset: slug of the dataset.
        backbone: short name (``r50-d8``) or timm's (``resnet50c``).
        min_miou: per cent, single scale; only weights of semantic segmentation have it.
        commercial: only those whose three licences all allow commercial use.
        local: only those whose file is here.
        max_parameters, max_gflop: at most so many; without those of which it is not known.

    Raises:
        ZooError: unknown name, or an index file is wrong.
    """
    task, head, dataset, backbone = (name and name.strip().lower() for name in (task, head, dataset, backbone))
    _known("task", task, tasks())
    if head and head not in heads(task):
        classes = {entry.name.lower(): entry.head for entry in list_entries(task=task)}
        head = classes.get(head, head)
    _known("head", head, heads(task))
    _known("dataset", dataset, datasets())
    entries = [entry for path in _files(task, head) for entry in read(path)]
    _known("backbone", backbone, {name for each in entries for name in (each.backbone.slug, each.backbone.name)})
    return [
        entry
        for entry in entries
        if dataset in (None, entry.dataset)
        and backbone in (None, entry.backbone.slug, entry.backbone.name)
        and (min_miou is None or entry.metrics.get("mIoU", -1) >= min_miou)
        and (not commercial or entry.commercial == "yes")
        and (not local or find(entry) is not None)
        and (max_parameters is None or (entry.parameters or float("inf")) <= max_parameters)
        and (max_gflop is None or (entry.gflop or float("inf")) <= max_gflop)
    ]


def get(id: str) -> ZooEntry:
    """The entry of that id.

    Raises:
        ZooError: no such id; names the closest one.
    """
    for path in sorted(_files(), key=lambda path: not id.startswith(f"{path.stem}_")):  # most begin with their file's
        for entry in read(path):
            if entry.id == id:
                return entry
    if better := replaced().get(id):
        raise ZooError(f'"{shown(id)}" has left the zoo: "{better}" does better. (contextzoo zoo show {better})')
    entries = list_entries()
    upstream = {entry.config: entry.id for entry in entries if entry.config}
    hint = f' Did you mean "{upstream[id]}"?' if id in upstream else suggest(id, (entry.id for entry in entries))
    raise ZooError(f'Unknown weights "{shown(id)}".{hint} (contextzoo zoo list)')


def replaced() -> dict[str, str]:
    """Ids that have left the index -> the entry that does better."""
    found: dict[str, str] = {}
    for path in _files():
        found |= parse_toml(path, text_of(path)).get("replaced", {})
    return found


def check() -> list[ZooEntry]:
    """Every entry, after checking what holds between files.

    Raises:
        ZooError: the first thing that is wrong, with file and line.
    """
    seen: dict[str, str] = {}
    entries = list_entries()
    ids: dict[str, Path] = {}
    for old, new in replaced().items():
        if new not in {entry.id for entry in entries}:
            raise ZooError(f'"{shown(old)}" is replaced by "{shown(new)}", which is in no file of the index')
    for entry in entries:
        path = file_of(entry.task, entry.head)
        if entry.id in ids:
            raise ZooError(f"{path}: {entry.id} stands in {ids[entry.id]} too")
        ids[entry.id] = path
        for source in entry.sources:
            if source in seen:
                line = line_of(text_of(path), f"entry.{entry.id}", "url")
                raise ZooError(f"{path}:{line}: {entry.id} and {seen[source]} have the same file {source}")
            seen[source] = entry.id
    return entries


def file_of(task: str, head: str) -> Path:
    """The file of the index that holds the entries of a head."""
    return INDEX / task / f"{head}.toml"


def _files(task: str | None = None, head: str | None = None) -> list[Path]:
    """The files of the index, in its order."""
    found = [file_of(each, stem) for each in ([task] if task else tasks()) for stem in heads(each)]
    return [path for path in found if head in (None, path.stem)]


@cache
def read(path: Path) -> tuple[ZooEntry, ...]:
    """Entries of one index file.

    ``[defaults]`` holds what imported entries share; an entry that names its own ``format`` takes nothing from there.
    ``[model.x]`` holds what the entries share that say ``model = "x"``; ``[replaced]``, which entry stands in for one
    that has left.

    Raises:
        ZooError: the file is wrong; names file, line and key.
    """
    return parse(path, text_of(path))


def parse(path: Path, text: str) -> tuple[ZooEntry, ...]:
    """Entries of the text of one index file.

    Raises:
        ZooError: it is wrong; names file, line and key.
    """

    def table(header: str, value: Any, known: Iterable[str] | None = None) -> dict[str, Any]:
        """``value``, once it is a table, and of known keys where those are given."""
        if not isinstance(value, dict):
            raise ZooError(f"{path}:{line_of(text, '', header)}: {shown(header)} must be a table")
        names = value if known is None else sorted(known)
        for key in value:
            if key not in names:
                where = f"{path}:{line_of(text, header, key)}"
                place = shown(header) or "the file"
                raise ZooError(f'{where}: unknown key "{shown(key)}" in {place}.{suggest(key, names)}')
        return value

    task = path.parent.name
    own_keys = details_of(task).keys()
    entry_keys = None if own_keys is None else _SHARED | own_keys.keys() | {"model"}
    top = table("", parse_toml(path, text), ("name", "paper", "defaults", "model", "replaced", "entry"))
    for key in ("name", "paper"):
        if not isinstance(top.get(key), str) or not top[key] or unfit(top[key]):
            raise ZooError(f"{path}:{line_of(text, '', key)}: {key} is missing, or is no printable text")
    defaults = table("defaults", top.get("defaults", {}), entry_keys)
    models = table("model", top.get("model", {}))
    for old, new in table("replaced", top.get("replaced", {})).items():
        if not isinstance(new, str):
            raise ZooError(f"{path}:{line_of(text, 'replaced', old)}: {shown(old)} must be the id of an entry")
    for name, model in models.items():
        table(f"model.{name}", model, own_keys)
    found = []
    for id, own in table("entry", top.get("entry", {})).items():
        table(f"entry.{id}", own, entry_keys)
        inherited = {} if "format" in own else defaults
        of_file = {"id": id, "task": task, "head": path.stem, "name": top["name"], "paper": top["paper"]}
        try:
            found.append(_entry(of_file, inherited | own, models))
        except FieldError as error:
            shared = error.field in inherited and error.field not in own
            header = "defaults" if shared else f"entry.{id}"
            raise ZooError(f"{path}:{line_of(text, header, error.field)}: {shown(id)}: {error}") from None
    return tuple(found)


def _entry(of_file: Mapping[str, str], table: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> ZooEntry:
    """The entry of a table of the file, completed and in the types of an entry's fields."""
    if told := table.keys() & (_OF_FILE | _DERIVED):
        raise FieldError(min(told), "is told elsewhere")
    values: dict[str, Any] = {**of_file, **table}
    if (model := values.pop("model", None)) is not None:
        values = {**values, **lookup("model", model, models)}
    if isinstance(values.get("backbone"), dict):
        values["backbone"] = read_backbone(values["backbone"].get("name", ""), values["backbone"])
    elif "backbone" in values:
        values["backbone"] = lookup("backbone", values["backbone"], backbones())
    for name in ("mirrors", "shared"):
        if isinstance(values.get(name), list):
            values[name] = tuple(values[name])
    if isinstance(values.get("url"), str) and isinstance(values.get("mirrors", ()), tuple):
        values["mirrors"] = (*values.get("mirrors", ()), *mirrors_of(values["url"]))
    if "dataset" in values:
        dataset = lookup("dataset", values["dataset"], datasets())
        values["data_licence"] = dataset.terms
        licences = [values.get(name) for name in ("code_licence", "weights_licence")]
        permissive = all(isinstance(licence, str) and licence in PERMISSIVE for licence in licences)
        values["commercial"] = dataset.commercial if permissive else "no"
    record = details_of(of_file["task"])
    details = {name: values.pop(name) for name in [*values] if name not in FIELDS}
    for name, needed in {**FIELDS, **(record.keys() or {})}.items():
        if needed and name not in (*values, *details, "details"):
            raise FieldError(name, "is missing")
    return ZooEntry(**values, details=record.of(details))


def _known(kind: str, name: str | None, known: Iterable[str]) -> None:
    names = sorted(known)
    if name is not None and name not in names:
        raise ZooError(f'Unknown {kind} "{shown(name)}".{suggest(name, names)} Known: {", ".join(names)}')
