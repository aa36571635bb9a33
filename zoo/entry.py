"""What the zoo knows of one set of weights: enough to rebuild the model and to check its number."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from zoo.errors import ZooError, shown

SHIPPED: Final = "checkpoints"  # folder of the repository that holds weights trained here
FORMATS: Final = {"openmmlab": ".pth", "safetensors": ".safetensors"}
PERMISSIVE: Final = frozenset(
    {"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0", "Unlicense"}
)
_ID: Final = re.compile(r"(?=.{3,150}$)[a-z0-9]+([_-][a-z0-9]+)+")  # with its suffixes it is the name of a file
_SHA256: Final = re.compile(r"[0-9a-f]{8}|[0-9a-f]{64}")
ADDRESSES: Final = "http(s), file, s3, gs, hf"
REMOTE: Final = re.compile(r"(https?|file|s3|gs|hf)://(?!\S*::)[!-~]{1,2000}")  # "::" would chain fsspec's file systems

_SHIPS: Final = re.compile(rf"{SHIPPED}(/[a-zA-Z0-9_-][a-zA-Z0-9._-]{{0,200}}){{1,4}}")
_LONGEST: Final = 2000  # characters of a text
_LARGEST: Final = 10**15  # of a whole number
_DEEPEST: Final = 8  # tables inside tables

Commercial = Literal["yes", "no", "unclear"]


class FieldError(ZooError):
    """A field of an entry is wrong; ``field`` says which, so that the index can name the line."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset that weights were trained on.

    Attributes:
        data: the datamodule that reads it.
        arguments: what the datamodule needs to be told.
        classes: names in label order.
        palette: "rrggbb" of each class.
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
    classes: tuple[str, ...]
    palette: tuple[str, ...]
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
        output_stride: image pixels per pixel of the last level; of the finest level for HRNet, which keeps it.
        changes: how the network differs from timm's.
        upstream: what is particular in the config of the published model.
    """

    slug: str
    name: str
    output_stride: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    upstream: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        changes = "".join(f", {name} {value}" for name, value in self.changes.items())
        return f"{self.name}, output stride {self.output_stride}{changes}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooEntry:
    """One set of weights.

    Attributes:
        id: ``<head>_<backbone>_<dataset>-<crop>_<schedule>``.
        head: slug of the head, the stem of the index file.
        name: class of the head.
        decode_head: of OpenMMLab's weights, the head's arguments in OpenMMLab's words, ``type`` among them; a cascade
            is a list of two. None of our own weights, whose file tells what it holds.
        auxiliary_head: those of the auxiliary head.
        crop: height and width of the training crops.
        window, stride: of the sliding window that the figures were measured with; None = the whole image at once.
        miou, miou_ms: per cent, single scale, and multi-scale with flip.
        miou_source: who measured it; for own weights the command, the date and the commit.
        batch: images per step over all devices.
        memory_gb: of one device in training.
        url: where the file is; ``checkpoints/...`` = it ships with the repository.
        mirrors: tried in order when ``url`` fails.
        size: bytes.
        sha256: all 64 hexadecimal digits, or the first 8 where no more is published.
        data_licence: terms of use of the training data.
        commercial: whether all three licences allow commercial use.
        config: name of the upstream config.
    """

    id: str
    head: str
    name: str
    paper: str

    backbone: Backbone
    decode_head: dict[str, Any] | list[dict[str, Any]] | None = None
    auxiliary_head: dict[str, Any] | None = None

    dataset: str
    split: str
    crop: tuple[int, int]
    align_corners: bool
    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None

    miou: float
    miou_ms: float | None = None
    miou_source: str

    iterations: int
    batch: int
    optimizer: str
    lr: float
    memory_gb: float | None = None

    url: str
    mirrors: tuple[str, ...] = ()
    size: int | None = None
    sha256: str
    format: str

    code_licence: str
    weights_licence: str
    data_licence: str
    commercial: Commercial

    config: str | None = None

    def __post_init__(self) -> None:
        for name, kinds in _KINDS.items():
            value = getattr(self, name)
            if type(value) not in kinds:
                wanted = " or ".join(kind.__name__ for kind in kinds)
                raise FieldError(name, f"{quoted(value)} is not {wanted}")
            if value == "":
                raise FieldError(name, "is empty")
            if type(value) is not Backbone and (reason := unfit(value)):
                raise FieldError(name, f"{quoted(value)}: {reason}")
        check = self._check
        check("id", _ID.fullmatch(self.id) is not None, "lower-case letters, digits, - and _, 150 at most")
        check("id", self.id.startswith(f"{self.head}_"), f'must start with "{shown(self.head)}_", the name of its file')
        check("sha256", _SHA256.fullmatch(self.sha256) is not None, "64 lower-case hexadecimal digits, or the first 8")
        check("format", self.format in FORMATS, " or ".join(FORMATS))
        for name in ("miou", "miou_ms"):
            check(name, 0 <= (getattr(self, name) or 0) <= 100, "per cent, 0 to 100")
        for name in ("crop", "window", "stride"):
            pair = getattr(self, name)
            check(name, pair is None or (len(pair) == 2 and all(map(_is_length, pair))), "[height, width]")
        check("stride", (self.window is None) == (self.stride is None), "window and stride go together")
        for name in ("iterations", "batch", "lr", "memory_gb", "size"):
            number = getattr(self, name)
            check(name, number is None or number > 0, "a positive number")
        for name, call in [*(("decode_head", stage) for stage in self.stages), ("auxiliary_head", self.auxiliary_head)]:
            typed = isinstance(call, dict) and isinstance(call.get("type"), str)
            check(name, typed or (call is None and name == "auxiliary_head"), "needs a type")
        if self.format == "openmmlab":
            check("decode_head", bool(self.stages), "needs a type")
            check("backbone", "type" in self.backbone.upstream, "needs upstream, the published model's config")
        check("mirrors", all(isinstance(mirror, str) for mirror in self.mirrors), "a list of addresses")
        for source in self.sources:
            name = "url" if source == self.url else "mirrors"
            ships = _SHIPS.fullmatch(source) is not None
            check(name, ships or REMOTE.fullmatch(source) is not None, f"{ADDRESSES} or {SHIPPED}/")
            check("sha256", not ships or len(self.sha256) == 64, "a file that ships with the repository needs all 64")

    def _check(self, name: str, good: bool, rule: str) -> None:
        if not good:
            raise FieldError(name, f"{quoted(getattr(self, name))}: {rule}")

    @property
    def sources(self) -> tuple[str, ...]:
        """Every address of the file, in the order to try."""
        return (self.url, *self.mirrors)

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The decode heads of OpenMMLab's weights: one, or the stages of a cascade."""
        if self.decode_head is None:
            return []
        return self.decode_head if isinstance(self.decode_head, list) else [self.decode_head]

    @property
    def filename(self) -> str:
        """Name of the file in the cache."""
        return self.id + FORMATS[self.format]

    @property
    def protocol(self) -> str:
        """How the figures were measured, in words."""
        how = "whole images"
        if self.window and self.stride:
            how = f"windows of {self.window[0]}x{self.window[1]} every {self.stride[0]}x{self.stride[1]} pixels"
        return f"{how}, align_corners {'on' if self.align_corners else 'off'}"


def quoted(value: object) -> str:
    """A value as the file spells it, fit for a line."""
    return f"'{shown(value)}'" if isinstance(value, str) else shown(value)


def unfit(value: object, depth: int = 0) -> str:
    """Why a value of a file cannot stand in an entry; empty where it can: printable, finite, small and plain."""
    if isinstance(value, str):
        return "" if len(value) <= _LONGEST and value.isprintable() else f"printable, {_LONGEST} characters at most"
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, int | float):
        return "" if abs(value) <= _LARGEST else f"a number of {_LARGEST:.0e} at most"
    if not isinstance(value, dict | list | tuple):
        return f"{type(value).__name__} has no place in an entry"
    if depth == _DEEPEST or len(value) > 1000:
        return f"{_DEEPEST} tables deep at most, and 1000 values long"
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    return next((reason for part in parts if (reason := unfit(part, depth + 1))), "")


def _is_length(value: object) -> bool:
    return type(value) is int and value > 0


def _kinds(hint: Any) -> tuple[type, ...]:
    """Types that a field's value may have; an int does where a float is asked."""
    if get_origin(hint) in (Union, UnionType):
        return tuple(kind for part in get_args(hint) for kind in _kinds(part))
    if get_origin(hint) is Literal:
        return (str,)
    kind = get_origin(hint) or hint
    return (float, int) if kind is float else (kind,)


_KINDS: Final = {name: _kinds(hint) for name, hint in get_type_hints(ZooEntry).items()}
FIELDS: Final = {each.name: each.default is MISSING for each in fields(ZooEntry)}  # name -> must be given
