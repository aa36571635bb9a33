"""The index: entries read from ``index/<head>.toml`` and checked."""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args

from zoo.cache import find
from zoo.entry import FIELDS, PERMISSIVE, Backbone, Commercial, Dataset, FieldError, ZooEntry
from zoo.errors import ZooError

ROOT: Final = Path(__file__).parent
INDEX: Final = ROOT / "index"
TRAINED_HERE: Final = "# Trained here"  # the line of an index file below which our own entries stand
_OF_FILE: Final = frozenset({"id", "head", "name", "paper"})  # told by the file, not by an entry's table
_DERIVED: Final = frozenset({"data_licence", "commercial"})  # told by the dataset
_ENTRY_KEYS: Final = FIELDS.keys() - _OF_FILE - _DERIVED | {"model"}
_BACKBONE_KEYS: Final = ("name", "output_stride", "changes", "upstream")
_MODEL_KEYS: Final = ("decode_head", "auxiliary_head")


def suggest(name: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?', or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f' Did you mean "{close[0]}"?' if close else ""


def heads() -> list[str]:
    """Slugs of all heads that have weights."""
    return sorted(path.stem for path in INDEX.glob("*.toml"))


@cache
def datasets() -> dict[str, Dataset]:
    """Slug -> dataset."""
    path = ROOT / "datasets.toml"
    found = {}
    for slug, table in _parse(path, _text(path)).items():
        keys = {"title", "data", "terms", "commercial", "classes", "palette"}
        if wrong := table.keys() - {"url", "evaluated"} ^ keys:
            raise ZooError(f"{path}: [{slug}]: wrong or missing key: {', '.join(sorted(wrong))}")
        table["url"] = table.get("url")
        table["evaluated"] = tuple(table.get("evaluated", ())) or None
        classes = tuple(" ".join(table.pop("classes").split()).split(", "))
        palette = tuple(table.pop("palette").split())
        if table["commercial"] not in get_args(Commercial):
            raise ZooError(f"{path}: [{slug}]: commercial must be {' or '.join(get_args(Commercial))}")
        if len(palette) != len(classes) or len(set(classes)) != len(classes):
            raise ZooError(f"{path}: [{slug}]: {len(classes)} classes, {len(palette)} colours; names must differ")
        found[slug] = Dataset(slug=slug, classes=classes, palette=palette, **table)
    return found


@cache
def backbones() -> dict[str, Backbone]:
    """Short name -> backbone."""
    path = ROOT / "backbones.toml"
    text = _text(path)
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
    """Entries that meet every condition given, in the order of the index. Upper case in names does not matter.

    Args:
        head: slug of the head.
        dataset: slug of the dataset.
        backbone: short name (``r50-d8``) or timm's (``resnet50c``).
        min_miou: per cent, single scale.
        commercial: only those whose three licences all allow commercial use.
        local: only those whose file is here.

    Raises:
        ZooError: unknown name, or an index file is wrong.
    """
    head, dataset, backbone = (name and name.lower() for name in (head, dataset, backbone))
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
    raise ZooError(f'Unknown weights "{id}".{hint} (contextzoo zoo list)')


def check() -> list[ZooEntry]:
    """Every entry, after checking what holds between files.

    Raises:
        ZooError: the first thing that is wrong, with file and line.
    """
    seen: dict[str, str] = {}
    entries = list_entries()
    for entry in entries:
        for source in entry.sources:
            if source in seen:
                path = INDEX / f"{entry.head}.toml"
                line = _line(_text(path), f"entry.{entry.id}", "url")
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
    return _entries(path, _text(path))


def add(id: str, head: str, name: str, paper: str, values: Mapping[str, Any], folder: Path = INDEX) -> Path:
    """Append an entry of weights trained here to ``folder/<head>.toml``; returns that path.

    Args:
        values: the fields of :class:`ZooEntry`, as the file spells them; those that the index derives are left out.

    Raises:
        ZooError: the entry would be wrong, or the id is taken; nothing is written.
    """
    path = folder / f"{head}.toml"
    text = _text(path) if path.exists() else f"name = {_toml(name)}\npaper = {_toml(paper)}\n"
    if f"[entry.{id}]" in text.splitlines():
        raise ZooError(f"{path}: {id} is taken; give another id")
    if f"\n{TRAINED_HERE}\n" not in text:
        text += f"\n{TRAINED_HERE}\n"
    text += "\n" + format_table(f"entry.{id}", values)
    _entries(path, text)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    read.cache_clear()
    return path


def format_table(header: str, values: Mapping[str, Any]) -> str:
    """A table in TOML; of a list of tables, each stands on its own line. None is left out."""
    lines = [f"[{header}]"]
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{key} = [", *(f"  {_toml(each)}," for each in value), "]"]
        elif value is not None:
            lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _entries(path: Path, text: str) -> tuple[ZooEntry, ...]:
    def table(header: str, value: Any, known: Iterable[str] | None = None) -> dict[str, Any]:
        """``value``, once it is a table, and of known keys where those are given."""
        if not isinstance(value, dict):
            raise ZooError(f"{path}:{_line(text, '', header)}: {header} must be a table")
        names = value if known is None else sorted(known)
        for key in value:
            if key not in names:
                where = f"{path}:{_line(text, header, key)}"
                raise ZooError(f'{where}: unknown key "{key}" in {header or "the file"}.{suggest(key, names)}')
        return value

    top = table("", _parse(path, text), ("name", "paper", "defaults", "model", "entry"))
    for key in ("name", "paper"):
        if not isinstance(top.get(key), str) or not top[key]:
            raise ZooError(f"{path}:1: {key} is missing")
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
            raise ZooError(f"{path}:{_line(text, header, error.field)}: {id}: {error}") from None
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
        permissive = all(str(values.get(name)) in PERMISSIVE for name in ("code_licence", "weights_licence"))
        values["commercial"] = dataset.commercial if permissive else "no"
    for name, needed in FIELDS.items():
        if needed and name not in values and name not in _OF_FILE:
            raise FieldError(name, "is missing")
    return values


def _backbone(slug: str, table: Mapping[str, Any]) -> Backbone:
    for key in table:
        if key not in _BACKBONE_KEYS:
            raise FieldError("backbone", f'unknown key "{key}" of {slug}.{suggest(key, _BACKBONE_KEYS)}')
    if not isinstance(table.get("name"), str) or not isinstance(table.get("output_stride"), int):
        raise FieldError("backbone", f"{slug} needs a name, in quotes, and an output_stride, a number")
    for key in ("changes", "upstream"):
        if not isinstance(table.get(key, {}), dict):
            raise FieldError("backbone", f"{key} of {slug} must be a table")
    return Backbone(slug, **table)


def _lookup(kind: str, name: Any, known: Mapping[str, Any]) -> Any:
    if not isinstance(name, str) or name not in known:
        raise FieldError(kind, f"{name!r} is not known.{suggest(str(name), known)}")
    return known[name]


def _known(kind: str, name: str | None, known: Iterable[str]) -> None:
    names = sorted(known)
    if name is not None and name not in names:
        raise ZooError(f'Unknown {kind} "{name}".{suggest(name, names)} Known: {", ".join(names)}')


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ZooError(f"{path}: {error.strerror}") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise ZooError(f"{path}:{line[1] if line else text.count(chr(10))}: {error}") from None


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


_SYNC_BN: Final = {"type": "SyncBN", "requires_grad": True}
_RESNET: Final = {
    "num_stages": 4,
    "out_indices": [0, 1, 2, 3],
    "style": "pytorch",
    "contract_dilation": True,
}
_PREPROCESS: Final = {
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "bgr_to_rgb": True,
    "pad_val": 0,
    "seg_pad_val": 255,
}


def evaluation_size(entry: ZooEntry) -> tuple[int, int] | None:
    """Longer and shorter side of the box that OpenMMLab resizes evaluation images to fill; None = as they are.

    With corners aligned, one pixel more on each side, as in its configurations of 769 x 769 crops.
    """
    box = datasets()[entry.dataset].evaluated
    return (box[0] + 1, box[1] + 1) if box and entry.align_corners else box


def upstream_config(entry: ZooEntry) -> dict[str, Any]:
    """The published model as mmsegmentation's config spells it.

    Keys: backbone, neck, decode_head, auxiliary_head, segmentor, test_cfg, preprocess. What all published models share
    is filled in here; an entry's tables hold the rest.

    Raises:
        ZooError: the weights are not OpenMMLab's.
    """
    if entry.format != "openmmlab":
        raise ZooError(f"{entry.id} holds its own config: its format is {entry.format}")
    shared = {
        "num_classes": len(datasets()[entry.dataset].classes),
        "align_corners": entry.align_corners,
        "norm_cfg": _SYNC_BN,
        "dropout_ratio": 0.1,
    }

    def head(arguments: Mapping[str, Any], loss_weight: float) -> dict[str, Any]:
        loss = {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": loss_weight}
        return {**shared, "loss_decode": loss, **arguments}

    *coarse, final = entry.stages
    decode_head = [*(head(stage, 0.4) for stage in coarse), head(final, 1.0)]
    resnet = {} if entry.backbone.upstream["type"] == "HRNet" else _RESNET
    test: dict[str, Any] = {"mode": "whole"}
    if entry.window and entry.stride:
        test = {"mode": "slide", "crop_size": list(entry.window), "stride": list(entry.stride)}
    return deepcopy(
        {
            "backbone": {**resnet, "norm_cfg": _SYNC_BN, "norm_eval": False, **entry.backbone.upstream},
            "neck": None,
            "decode_head": decode_head if coarse else decode_head[0],
            "auxiliary_head": head(entry.auxiliary_head, 0.4) if entry.auxiliary_head else None,
            "segmentor": "CascadeEncoderDecoder" if coarse else "EncoderDecoder",
            "test_cfg": test,
            "preprocess": _PREPROCESS,
        }
    )
