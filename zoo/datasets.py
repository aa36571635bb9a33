"""What many entries share: ``datasets.toml``, ``backbones.toml`` and ``mirrors.toml``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, get_args

from zoo.errors import ZooError, shown
from zoo.toml import parse, suggest, text_of
from zoo.values import FieldError, quoted, unfit

ROOT: Final = Path(__file__).parent
_BACKBONE_KEYS: Final = ("name", "output_stride", "changes", "upstream")

Commercial = Literal["yes", "no", "unclear"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset that weights were trained on.

    Attributes:
        data: the datamodule that reads it.
        arguments: what the datamodule needs to be told.
        classes: names in label order; none where the labels are keypoints.
        palette: "rrggbb" of each class; none where nobody chose colours.
        keypoints: names in their order.
        terms: terms of use of the training data, one line.
        commercial: what those terms say of commercial use.
        url: where to get it; None = the datamodule draws it.
        evaluated: longer and shorter side of the box that images fill where published weights are evaluated.
    """

    slug: str
    title: str
    data: str
    terms: str
    commercial: Commercial
    url: str | None
    classes: tuple[str, ...] = ()
    palette: tuple[str, ...] = ()
    keypoints: tuple[str, ...] = ()
    evaluated: tuple[int, int] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def typed(self) -> str:
        """The datamodule and its arguments, as ``--data`` takes them."""
        return " ".join([self.data, *(f"--data.{name} {value}" for name, value in self.arguments.items())])


@dataclass(frozen=True, slots=True)
class Backbone:
    """A backbone in timm's words.

    Attributes:
        slug: its short name in ids, such as ``r50-d8``.
        name: timm's name, such as ``resnet50c``.
        output_stride: image pixels per pixel of the last level; of the finest level for HRNet, which keeps it. None of
            our own weights, whose file tells it, and what differs from timm's network.
        changes: how the network differs from timm's.
        upstream: what is particular in the config of the published model.
    """

    slug: str
    name: str
    output_stride: int | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    upstream: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        stride = "" if self.output_stride is None else f", output stride {self.output_stride}"
        return self.name + stride + "".join(f", {name} {value}" for name, value in self.changes.items())


@cache
def datasets() -> dict[str, Dataset]:
    """Slug -> dataset."""
    path = ROOT / "datasets.toml"
    found: dict[str, Dataset] = {}
    for slug, table in parse(path, text_of(path)).items():
        found[slug] = _dataset(f"{path}: [{shown(slug)}]", slug, table, found)
    return found


def _dataset(where: str, slug: str, table: Any, others: Mapping[str, Dataset]) -> Dataset:
    """One dataset; ``like`` takes classes and colours of one that stands above it."""
    if not isinstance(table, dict):
        raise ZooError(f"{where} must be a table")
    labels = next((key for key in ("like", "keypoints") if key in table), "classes")
    texts = {"title", "data", "terms", "commercial", labels}
    optional = {"url", "evaluated", "arguments", {"like": "without", "classes": "palette"}.get(labels, "url")}
    if wrong := table.keys() - optional ^ texts:
        raise ZooError(f"{where}: wrong or missing key: {', '.join(map(shown, sorted(wrong)))}")
    for key in sorted(texts | table.keys() & {"url", "palette"}):
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
    keypoints = _names(where, table["keypoints"]) if labels == "keypoints" else ()
    classes, palette = ((), ()) if keypoints else _classes(where, table, others)
    return Dataset(
        slug=slug,
        title=table["title"],
        data=table["data"],
        terms=table["terms"],
        commercial=table["commercial"],
        url=table.get("url"),
        classes=classes,
        palette=palette,
        keypoints=keypoints,
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
        kept = [number for number, name in enumerate(other.classes) if name not in without]
        return tuple(other.classes[each] for each in kept), tuple(other.palette[each] for each in kept if other.palette)
    classes = _names(where, table["classes"])
    palette = tuple(table.get("palette", "").split())
    if "palette" in table and len(palette) != len(classes):
        raise ZooError(f"{where}: {len(classes)} classes, {len(palette)} colours")
    if not all(re.fullmatch("[0-9a-f]{6}", colour) for colour in palette):
        raise ZooError(f"{where}: palette must hold rrggbb of each class, in lower-case hexadecimal digits")
    return classes, palette


def _names(where: str, text: str) -> tuple[str, ...]:
    names = tuple(" ".join(text.split()).split(", "))
    if len(set(names)) != len(names):
        raise ZooError(f"{where}: {len(names)} names, of which two are the same")
    return names


@cache
def backbones() -> dict[str, Backbone]:
    """Short name -> backbone."""
    path = ROOT / "backbones.toml"
    text = text_of(path)
    try:
        return {slug: read_backbone(slug, table) for slug, table in parse(path, text).items()}
    except FieldError as error:
        raise ZooError(f"{path}: {error}") from None


@cache
def _mirrors() -> dict[str, list[str]]:
    path = ROOT / "mirrors.toml"
    found = parse(path, text_of(path))
    for address, others in found.items():
        if not isinstance(others, list) or not all(isinstance(each, str) for each in (address, *others)):
            raise ZooError(f"{path}: {shown(address)} needs a list of addresses")
    return found


def mirrors_of(url: str) -> tuple[str, ...]:
    """Other addresses of the same file, by ``mirrors.toml``."""
    found = [(address, others) for address, others in _mirrors().items() if url.startswith(address)]
    return tuple(other + url.removeprefix(address) for address, others in found for other in others)


def read_backbone(slug: Any, table: Any) -> Backbone:
    """A backbone of a table of a file.

    Raises:
        FieldError: it is wrong.
    """
    slug = shown(slug)
    if not isinstance(table, dict):
        raise FieldError("backbone", f"{slug} must be a table")
    for key in table:
        if key not in _BACKBONE_KEYS:
            raise FieldError("backbone", f'unknown key "{shown(key)}" of {slug}.{suggest(key, _BACKBONE_KEYS)}')
    stride = table.get("output_stride", 1)
    if not isinstance(table.get("name"), str) or type(stride) is not int or not 0 < stride <= 1024:
        raise FieldError("backbone", f"{slug} needs a name, in quotes; its output_stride is a positive number")
    for key in ("changes", "upstream"):
        if not isinstance(table.get(key, {}), dict):
            raise FieldError("backbone", f"{key} of {slug} must be a table")
    if reason := unfit(table):
        raise FieldError("backbone", f"{slug}: {reason}")
    return Backbone(slug, **table)


def lookup(kind: str, name: Any, known: Mapping[str, Any]) -> Any:
    """What a file names.

    Raises:
        FieldError: it is not known.
    """
    if not isinstance(name, str) or name not in known:
        raise FieldError(kind, f"{quoted(name)} is not known.{suggest(shown(name), known)}")
    return known[name]
