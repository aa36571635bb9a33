"""From a network to a file of another program, run against the network before it is kept."""

import copy
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from torch import nn
from torch.fx.experimental import _config

from lightning_app.export import aoti, onnx, pt2
from lightning_app.export.catalogue import graph_of
from lightning_app.export.graphs import Graph, Size
from lightning_app.export.int8 import agreement, photographs, quantize
from lightning_app.export.objects import Objects
from lightning_app.export.recording import first_line, quiet, record
from lightning_app.export.verify import HALF_TOLERANCE, Check, checks
from lightning_app.tasks.info import evaluating
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError, check_choice
from lightning_app.util.files import replacing

FORMATS: Final[dict[str, ModuleType]] = {"onnx": onnx, "pt2": pt2, "aoti": aoti}


@dataclass(frozen=True)
class Exported:
    """A file that was written, and the comparisons that it passed.

    Args:
        agreement: of a file in 8 bits, the share of the photographs' pixels that keep their class.
    """

    path: Path
    checks: tuple[Check, ...]
    agreement: float | None = None

    def __str__(self) -> str:
        lines = [f"Wrote {self.path}", "As the network: " + " | ".join(map(str, self.checks))]
        if self.agreement is not None:
            lines[1:] = [f"{self.agreement:.1%} of the photographs' pixels keep their class"]
        return "\n".join(lines)


def export(
    network: nn.Module,
    path: str | Path,
    *,
    to: str = "onnx",
    output: str | None = None,
    size: Size | None = None,
    half: bool = False,
    int8: str | Path | None = None,
) -> Exported:
    """Write a network to a file that runs without this program, once it gives there what it gives here.

    Photographs of any number, height and width in 0..1 go in, one at a time to a detector: normalisation is inside.
    What the weights know is in the file's metadata.

    Args:
        path: the file, which must not be there.
        to: onnx, pt2 (torch.export) or aoti (AOTInductor, compiled for this processor).
        output: logits or classes of a segmentor, maps or keypoints of a pose estimator, objects of a detector; None
            is the first.
        size: height and width, where the file is to take this size alone.
        half: weights and arithmetic in half precision; what goes in and comes out stays float32.
        int8: a folder of photographs, by whose features convolutions are put into 8 bits; of ONNX alone.

    Raises:
        InputError: a destination, format or network that cannot be used.
        Mismatch: the file gives something else than the network; it is not kept.
    """
    check_choice("to", to, tuple(FORMATS))
    path, form = Path(path), FORMATS[to]
    _check_destination(path, form.SUFFIX)
    photos = None
    if int8 is not None:
        if to != "onnx" or half or not isinstance(network, Segmentor):
            raise InputError("8 bits are for segmentors as ONNX, without half: leave int8 out")
        photos = photographs(Path(int8), network, size)
    given = copy.deepcopy(network).half() if half else network
    free = _config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]  # no guards by chance of a size
    with evaluating(network), evaluating(given), quiet(), torch.no_grad(), free:
        reference, graph = graph_of(network, output), graph_of(given, output)
        size = graph.taken(size)
        if half and isinstance(graph, Objects):
            raise InputError("Half precision is too coarse for boxes in pixels: leave half out")
        form.check(graph)
        program = record(graph, size)
        with replacing(path) as part:
            said = metadata(reference, size=size, half=half, int8=int8 is not None)
            try:
                form.write(program, part, graph.outputs, said)
            except Exception as error:  # whatever a format's writer raises
                what = f"{type(network).__name__} cannot be written as {to}"
                raise InputError(f"{what}: {first_line(error)}") from error
            shapes = reference.shapes(size)
            done = tuple(checks(reference, form.load(part), shapes, HALF_TOLERANCE if half else reference.tolerance))
            if photos is None:
                return Exported(path, done)
            quantize(part, part, photos)
            run = form.load(part)
            done = tuple(checks(reference, run, shapes, math.inf))
            return Exported(path, done, agreement(reference, run, photos))


def metadata(graph: Graph, **how: Any) -> dict[str, Any]:
    """What a file says of itself: what goes in and comes out, and what the weights know."""
    info = graph.network.info
    known = {} if info is None else {key: value for key, value in asdict(info).items() if key not in ("data", "parts")}
    said = known | graph.facts() | how
    return {key: value for key, value in said.items() if value}


def _check_destination(path: Path, suffix: str) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file in it, such as {path / f'model{suffix}'}")
    if path.exists() or path.is_symlink():
        raise InputError(f"{path} is there already: move it, or give another name")
    if path.suffix != suffix:
        raise InputError(f"{path}: a name that ends in {suffix}")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder")
