"""The index: entries read from ``index/<head>.toml`` and checked."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args

from zoo.cache import find
from zoo.entry import FIELDS, PERMISSIVE, Backbone, Commercial, Dataset, FieldError, ZooEntry, quoted, unfit
from zoo.errors import ZooError, shown
from zoo.files import open_plain

ROOT: Final = Path(__file__).parent
INDEX: Final = ROOT / "index"
_OF_FILE: Final = frozenset({"id", "head", "name", "paper"})  # told by the file, not by an entry's table
_DERIVED: Final = frozenset({"data_licence", "commercial"})  # told by the dataset
_ENTRY_KEYS: Final = FIELDS.keys() - _OF_FILE - _DERIVED | {"model"}
_LONGEST_NAME: Final = 200  # characters of what was typed that are compared with names
_LARGEST_FILE: Final = 10**6  # bytes of an index file; the largest of ours has 27 kB
_MOST_DOTS: Final = 200  # in a line: the time to read a dotted key grows with the square of its parts
_BACKBONE_KEYS: Final = ("name", "output_stride", "changes", "upstream")
_MODEL_KEYS: Final = ("decode_head", "auxiliary_head")


def suggest(name: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?', or nothing. Upper case and blanks around the name do not matter."""
    names = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name[:_LONGEST_NAME].strip().lower(), names, n=1, cutoff=0.5)
    return f' Did you mean "{shown(names[close[0]])}"?' if close else ""


def heads() -> list[str]:
    """Slugs of all heads that have weights."""
    return sorted(path.stem for path in INDEX.glob("*.toml"))


@cache
def datasets() -> dict[str, Dataset]:
    """Slug -> dataset."""
    path = ROOT / "datasets.toml"
    found: dict[str, Dataset] = {}
    for slug, table in _parse(path, text_of(path)).items():
        found[slug] = _dataset(f"{path}: [{shown(slug)}]", slug, table, found)
    return found


def _dataset(where: str, slug: str, table: Any, others: Mapping[str, Dataset]) -> Dataset:
    """One dataset; ``like`` takes classes and colours of one that stands above it."""
    if not isinstance(table, dict):
        raise ZooError(f"{where} must be a table")
    texts = {"title", "data", "terms", "commercial"} | ({"like"} if "like" in table else {"classes", "palette"})
    optional = {"url", "evaluated", "arguments"} | ({"without"} if "like" in table else set())
    if wrong := table.keys() - optional ^ texts:
        raise ZooError(f"{where}: wrong or missing key: {', '.join(map(shown, sorted(wrong)))}")
    for key in sorted(texts | table.keys() & {"url"}):
        if not isinstance(table[key], str) or not table[key].strip() or unfit(" ".join(table[key].split())):
            raise ZooError(f"{where}: {key} must be a text, printable and not too long")
    box = table.get("evaluated")
    if box is not None and not (isinstance(box, list) and len(box) == 2 and all(type(side) is int for side in box)):
        raise ZooError(f"{where}: evaluated must be [longer, shorter side], in pixels")
    arguments = table.get("arguments", {})
    if not isinstance(arguments, dict) or not all(type(value) in (str, int) for value in arguments.values()):
        raise ZooError(f"{where}: arguments must be a table of texts and whole numbers")
    if table["commercial"] not in get_args(Commercial):
        raise ZooError(f"{where}: commercial must be {' or '.join(get_args(Commercial))}")
    classes, palette = _classes(where, table, others)
    return Dataset(
        slug=slug,
        title=table["title"],
        data=table["data"],
        terms=table["terms"],
        commercial=table["commercial"],
        url=table.get("url"),
        classes=classes,
        palette=palette,
        evaluated=(box[0], box[1]) if box else None,
        arguments=arguments,
    )


def _classes(
    where: str, table: Mapping[str, Any], others: Mapping[str, Dataset]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and colours, of a dataset's own or of another's."""
    if "like" in table:
        if (like := table["like"]) not in others:
            raise ZooError(f"{where}: like: no dataset above is {quoted(like)}.{suggest(like, others)}")
        other, without = others[like], table.get("without", [])
        if not isinstance(without, list) or not all(name in other.classes for name in without):
            raise ZooError(f"{where}: without must be a list of classes of {like}")
        kept = [pair for pair in zip(other.classes, other.palette, strict=True) if pair[0] not in without]
        return tuple(name for name, _ in kept), tuple(colour for _, colour in kept)
    classes = tuple(" ".join(table["classes"].split()).split(", "))
    palette = tuple(table["palette"].split())
    if len(palette) != len(classes) or len(set(classes)) != len(classes):
        raise ZooError(f"{where}: {len(classes)} classes, {len(palette)} colours; names must differ")
    if not all(re.fullmatch("[0-9a-f]{6}", colour) for colour in palette):
        raise ZooError(f"{where}: palette must hold rrggbb of each class, in lower-case hexadecimal digits")
    return classes, palette


@cache
def backbones() -> dict[str, Backbone]:
    """Short name -> backbone."""
    path = ROOT / "backbones.toml"
    text = text_of(path)
    try:
        return {slug: _backbone(slug, table) for slug, table in _parse(path, text).items()}
    except FieldError as error:
        raise ZooError(f"{path}: {error}") from None


def list_entries(
    *,
    head: str | None = None,
    dataset: str | None = None,
    backbone: str | None = None,
    min_miou: float | None = None,
    commercial: bool = False,
    local: bool = False,
) -> list[ZooEntry]:
    """Entries that meet every condition given, in the order of the index.

    Upper case in names, and blanks around them, do not matter.

    Args:
        head: slug of the head (``nonlocal_net``), or its class (``NonLocal``).
        dataset: slug of the dataset.
        backbone: short name (``r50-d8``) or timm's (``resnet50c``).
        min_miou: per cent, single scale.
        commercial: only those whose three licences all allow commercial use.
        local: only those whose file is here.

    Raises:
        ZooError: unknown name, or an index file is wrong.
    """
    head, dataset, backbone = (name and name.strip().lower() for name in (head, dataset, backbone))
    if head and head not in heads():
        classes = {entry.name.lower(): entry.head for entry in list_entries()}
        head = classes.get(head, head)
    _known("head", head, heads())
    _known("dataset", dataset, datasets())
    entries = [entry for stem in ([head] if head else heads()) for entry in read(INDEX / f"{stem}.toml")]
    _known("backbone", backbone, {name for each in entries for name in (each.backbone.slug, each.backbone.name)})
    return [
        entry
        for entry in entries
        if dataset in (None, entry.dataset)
        and backbone in (None, entry.backbone.slug, entry.backbone.name)
        and (min_miou is None or entry.miou >= min_miou)
        and (not commercial or entry.commercial == "yes")
        and (not local or find(entry) is not None)
    ]


def get(id: str) -> ZooEntry:
    """The entry of that id.

    Raises:
        ZooError: no such id; names the closest one.
    """
    for stem in heads():
        if id.startswith(f"{stem}_"):
            for entry in read(INDEX / f"{stem}.toml"):
                if entry.id == id:
                    return entry
    entries = list_entries()
    upstream = {entry.config: entry.id for entry in entries if entry.config}
    hint = f' Did you mean "{upstream[id]}"?' if id in upstream else suggest(id, (entry.id for entry in entries))
    raise ZooError(f'Unknown weights "{shown(id)}".{hint} (contextzoo zoo list)')


def check() -> list[ZooEntry]:
    """Every entry, after checking what holds between files.

    Raises:
        ZooError: the first thing that is wrong, with file and line.
    """
    seen: dict[str, str] = {}
    entries = list_entries()
    ids: dict[str, str] = {}
    for entry in entries:
        if entry.id in ids:
            raise ZooError(f"{INDEX / entry.head}.toml: {entry.id} stands in {ids[entry.id]}.toml too")
        ids[entry.id] = entry.head
        for source in entry.sources:
            if source in seen:
                path = INDEX / f"{entry.head}.toml"
                line = _line(text_of(path), f"entry.{entry.id}", "url")
                raise ZooError(f"{path}:{line}: {entry.id} and {seen[source]} have the same file {source}")
            seen[source] = entry.id
    return entries


@cache
def read(path: Path) -> tuple[ZooEntry, ...]:
    """Entries of one index file.

    ``[defaults]`` holds what imported entries share; an entry that names its own ``format`` takes nothing from there.

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
            raise ZooError(f"{path}:{_line(text, '', header)}: {shown(header)} must be a table")
        names = value if known is None else sorted(known)
        for key in value:
            if key not in names:
                where = f"{path}:{_line(text, header, key)}"
                place = shown(header) or "the file"
                raise ZooError(f'{where}: unknown key "{shown(key)}" in {place}.{suggest(key, names)}')
        return value

    top = table("", _parse(path, text), ("name", "paper", "defaults", "model", "entry"))
    for key in ("name", "paper"):
        if not isinstance(top.get(key), str) or not top[key] or unfit(top[key]):
            raise ZooError(f"{path}:{_line(text, '', key)}: {key} is missing, or is no printable text")
    defaults = table("defaults", top.get("defaults", {}), _ENTRY_KEYS)
    models = table("model", top.get("model", {}))
    for name, model in models.items():
        table(f"model.{name}", model, _MODEL_KEYS)
    found = []
    for id, own in table("entry", top.get("entry", {})).items():
        table(f"entry.{id}", own, _ENTRY_KEYS)
        inherited = {} if "format" in own else defaults
        try:
            values = _values(path.stem, inherited | own, models)
            found.append(ZooEntry(id=id, name=top["name"], paper=top["paper"], **values))
        except FieldError as error:
            shared = error.field in inherited and error.field not in own
            header = "defaults" if shared else f"entry.{id}"
            raise ZooError(f"{path}:{_line(text, header, error.field)}: {shown(id)}: {error}") from None
    return tuple(found)


def _values(head: str, table: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A table of the file, completed and in the types of an entry's fields."""
    values: dict[str, Any] = {"head": head, **table}
    if (model := values.pop("model", None)) is not None:
        values = {**values, **_lookup("model", model, models)}
    if isinstance(values.get("backbone"), dict):
        values["backbone"] = _backbone(values["backbone"].get("name", ""), values["backbone"])
    elif "backbone" in values:
        values["backbone"] = _lookup("backbone", values["backbone"], backbones())
    for name in ("crop", "window", "stride", "mirrors"):
        if isinstance(values.get(name), list):
            values[name] = tuple(values[name])
    if "dataset" in values:
        dataset = _lookup("dataset", values["dataset"], datasets())
        values["data_licence"] = dataset.terms
        licences = [values.get(name) for name in ("code_licence", "weights_licence")]
        permissive = all(isinstance(licence, str) and licence in PERMISSIVE for licence in licences)
        values["commercial"] = dataset.commercial if permissive else "no"
    for name, needed in FIELDS.items():
        if needed and name not in values and name not in _OF_FILE:
            raise FieldError(name, "is missing")
    return values


def _backbone(slug: Any, table: Any) -> Backbone:
    slug = shown(slug)
    if not isinstance(table, dict):
        raise FieldError("backbone", f"{slug} must be a table")
    for key in table:
        if key not in _BACKBONE_KEYS:
            raise FieldError("backbone", f'unknown key "{shown(key)}" of {slug}.{suggest(key, _BACKBONE_KEYS)}')
    stride = table.get("output_stride")
    if not isinstance(table.get("name"), str) or type(stride) is not int or not 0 < stride <= 1024:
        raise FieldError("backbone", f"{slug} needs a name, in quotes, and an output_stride, a positive number")
    for key in ("changes", "upstream"):
        if not isinstance(table.get(key, {}), dict):
            raise FieldError("backbone", f"{key} of {slug} must be a table")
    if reason := unfit(table):
        raise FieldError("backbone", f"{slug}: {reason}")
    return Backbone(slug, **table)


def _lookup(kind: str, name: Any, known: Mapping[str, Any]) -> Any:
    if not isinstance(name, str) or name not in known:
        raise FieldError(kind, f"{quoted(name)} is not known.{suggest(shown(name), known)}")
    return known[name]


def _known(kind: str, name: str | None, known: Iterable[str]) -> None:
    names = sorted(known)
    if name is not None and name not in names:
        raise ZooError(f'Unknown {kind} "{shown(name)}".{suggest(name, names)} Known: {", ".join(names)}')


def text_of(path: Path) -> str:
    """The text of one index file.

    Raises:
        ZooError: it cannot be read.
    """
    try:
        with open_plain(path) as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ZooError(f"{path}: {error.strerror}") from None
    if len(content) > _LARGEST_FILE:
        raise ZooError(f"{path}: over {_LARGEST_FILE / 1e6:g} MB, which no index file has")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ZooError(f"{path}:{content.count(10, 0, error.start) + 1}: not UTF-8") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MOST_DOTS:
            raise ZooError(f"{path}:{number}: over {_MOST_DOTS} dots in a line")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ZooError(f"{path}: tables inside tables without end") from None
    except ValueError as error:  # of TOML, or of a number with more digits than Python reads
        place = re.search(r"at line (\d+)", str(error))
        raise ZooError(f"{path}:{place[1] if place else text.count(chr(10))}: {shown(str(error))}") from None


def _line(text: str, header: str, key: str = "") -> int:
    """Number of the line where ``key`` stands in the table ``[header]``; of the header where it does not."""
    lines = text.splitlines()
    start = lines.index(f"[{header}]") if f"[{header}]" in lines else 0
    for number, line in enumerate(lines[start:], start + 1):
        if key and re.match(rf"{re.escape(key)}\s*=", line):
            return number
        if line.startswith("[") and number > start + 1:
            break
    return start + 1
