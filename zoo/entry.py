"""What the zoo knows of one set of weights: enough to rebuild the model and to check its number."""

import re
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Final, Protocol

from zoo.datasets import Backbone, Commercial
from zoo.details import Details
from zoo.errors import shown
from zoo.values import check_field, check_types, kinds_of

SHIPPED: Final = "checkpoints"  # folder of the repository that holds weights trained here
FORMATS: Final = {"openmmlab": ".pth", "torchvision": ".pth", "safetensors": ".safetensors"}
PERMISSIVE: Final = frozenset(
    {"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0", "Unlicense"}
)
_ID: Final = re.compile(r"(?=.{3,150}$)[a-z0-9]+([_-][a-z0-9]+)+")  # with its suffixes it is the name of a file
_SHA256: Final = re.compile(r"[0-9a-f]{8}|[0-9a-f]{64}")
ADDRESSES: Final = "http(s), file, s3, gs, hf"
REMOTE: Final = re.compile(r"(https?|file|s3|gs|hf)://(?!\S*::)[!-~]{1,2000}")  # "::" would chain fsspec's file systems
_SHARED_NAME: Final = "addresses of files that are named by their sha256, 64 lower-case hexadecimal digits"
_SHIPS: Final = re.compile(rf"{SHIPPED}(/[a-zA-Z0-9_-][a-zA-Z0-9._-]{{0,200}}){{1,4}}")


class Stored(Protocol):
    """A file that can be fetched and checked."""

    @property
    def id(self) -> str: ...
    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def size(self) -> int | None: ...
    @property
    def sha256(self) -> str: ...
    @property
    def filename(self) -> str: ...


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A part of a network that several entries have in common: one file, whose name is its sha256."""

    url: str

    @property
    def sha256(self) -> str:
        return self.url.rpartition("/")[2].removesuffix(FORMATS["safetensors"])

    @property
    def id(self) -> str:
        """As a person is told of it."""
        return f"shared part {self.sha256[:12]}"

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.url,)

    @property
    def size(self) -> None:
        return None

    @property
    def filename(self) -> str:
        return f"{self.sha256}{FORMATS['safetensors']}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooEntry:
    """One set of weights.

    Attributes:
        id: ``<head>_<backbone>_<dataset>-<crop>_<schedule>``.
        task: what they do, the folder of the index file.
        head: slug of the head, the stem of the index file.
        name: class of the head.
        split: of the dataset, on which the figures were measured.
        metrics: figure -> per cent; which ones there are is the task's (``zoo/tasks/``).
        metrics_source: who measured them; for own weights the command, the date and the commit.
        iterations, epochs: how long the training was, one of the two.
        batch: images per step over all devices.
        memory_gb: of one device in training.
        parameters: of the network as it predicts, without auxiliary heads.
        gflop: of one look, by the task's ``looked_at``: convolutions and matrix products, 2 per multiply-add.
        url: where the file is; ``checkpoints/...`` = it ships with the repository.
        mirrors: tried in order when ``url`` fails.
        size: bytes.
        sha256: all 64 hexadecimal digits, or the first 8 where no more is published.
        shared: addresses of the files, named by their sha256, that hold the parts it has in common with other entries.
        data_licence: terms of use of the training data.
        commercial: whether all three licences allow commercial use.
        config: name of the upstream config, of torchvision's weights of the function that builds their network.
        details: what only weights of this task have.
    """

    id: str
    task: str
    head: str
    name: str
    paper: str

    backbone: Backbone
    dataset: str
    split: str

    metrics: dict[str, float]
    metrics_source: str

    iterations: int | None = None
    epochs: int | None = None
    batch: int
    optimizer: str | None = None
    lr: float | None = None
    memory_gb: float | None = None
    parameters: int | None = None
    gflop: float | None = None

    url: str
    mirrors: tuple[str, ...] = ()
    size: int | None = None
    sha256: str
    format: str
    shared: tuple[str, ...] = ()

    code_licence: str
    weights_licence: str
    data_licence: str
    commercial: Commercial

    config: str | None = None

    details: Details

    def __post_init__(self) -> None:
        check_types(self, _KINDS)
        check = self._check
        check("id", _ID.fullmatch(self.id) is not None, "lower-case letters, digits, - and _, 150 at most")
        begins = self.details.begins(self.head)
        check("id", self.id.startswith(begins), f'must start with "{shown(begins)}", after the name of its file')
        check("sha256", _SHA256.fullmatch(self.sha256) is not None, "64 lower-case hexadecimal digits, or the first 8")
        check("format", self.format in FORMATS, " or ".join(FORMATS))
        self._check_metrics()
        check("iterations", (self.iterations is None) != (self.epochs is None), "iterations or epochs, one of the two")
        for name in ("iterations", "epochs", "batch", "lr", "memory_gb", "parameters", "gflop", "size"):
            number = getattr(self, name)
            check(name, number is None or number > 0, "a positive number")
        if self.format == "openmmlab":
            self.details.check_published()
            check("backbone", "type" in self.backbone.upstream, "needs upstream, the published model's config")
            check("backbone", self.backbone.output_stride is not None, "needs an output_stride")
        check("config", self.format != "torchvision" or self.config is not None, "the function that builds the network")
        check("mirrors", all(isinstance(mirror, str) for mirror in self.mirrors), "a list of addresses")
        for each in self.shared_files:
            check("shared", len(each.sha256) == 64 and _SHA256.fullmatch(each.sha256) is not None, _SHARED_NAME)
            reached = _SHIPS.fullmatch(each.url) is not None or REMOTE.fullmatch(each.url) is not None
            check("shared", reached, f"{ADDRESSES} or {SHIPPED}/")
        for source in self.sources:
            name = "url" if source == self.url else "mirrors"
            ships = _SHIPS.fullmatch(source) is not None
            check(name, ships or REMOTE.fullmatch(source) is not None, f"{ADDRESSES} or {SHIPPED}/")
            check("sha256", not ships or len(self.sha256) == 64, "a file that ships with the repository needs all 64")

    def _check_metrics(self) -> None:
        known = tuple(self.details.metrics) or tuple(self.metrics)
        self._check("metrics", bool(self.metrics) and known[0] in self.metrics, f"needs {known[0] if known else 'one'}")
        for name, value in self.metrics.items():
            self._check("metrics", name in known, f"{shown(name)} is none of {', '.join(known)}")
            good = type(value) in (int, float) and 0 <= value <= 100
            self._check("metrics", good, f"{shown(name)} must be per cent, 0 to 100")

    def _check(self, name: str, good: bool, rule: str) -> None:
        check_field(self, name, good, rule)

    @property
    def sources(self) -> tuple[str, ...]:
        """Every address of the file, in the order to try."""
        return (self.url, *self.mirrors)

    @property
    def shared_files(self) -> tuple[SharedFile, ...]:
        """What has to lie beside the entry's own file."""
        return tuple(map(SharedFile, self.shared))

    @property
    def figure(self) -> float:
        """The task's first figure, per cent."""
        return self.metrics[next(iter(self.details.metrics or self.metrics))]

    @property
    def filename(self) -> str:
        """Name of the file in the cache."""
        return self.id + FORMATS[self.format]

    def as_dict(self) -> dict[str, Any]:
        """Everything that is known, in one table, as the index file spells it."""
        content = asdict(self)
        details: dict[str, Any] = content.pop("details")
        return content | details


_KINDS: Final = kinds_of(ZooEntry)
FIELDS: Final = {each.name: each.default is MISSING for each in fields(ZooEntry)}  # name -> must be given
