"""Programs of torch.export, which PyTorch runs without this program."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.export import ExportedProgram

SUFFIX: Final = ".pt2"
METADATA: Final = "contextzoo.json"  # of the file's extra files


def check(graph: torch.nn.Module) -> None:
    """Nothing is needed but PyTorch."""


def write(program: ExportedProgram, path: Path, outputs: Sequence[str], metadata: Mapping[str, Any]) -> None:
    """Write the program; what it says of itself is an extra file, in JSON.

    Guards are left out: they refuse what lies otherwise in memory than the example, such as one image in place of two,
    where the operators give the same. That they do is verified.
    """
    program._guards_code.clear()
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={METADATA: json.dumps({**metadata, "outputs": [*outputs]})})


def load(path: Path) -> Callable[[Tensor], list[Tensor]]:
    """What runs the file."""
    with path.open("rb") as file:
        module = torch.export.load(file).module()

    def run(images: Tensor) -> list[Tensor]:
        result = module(images)
        return [result] if isinstance(result, Tensor) else list(result)

    return run
