"""Packages of AOTInductor: the network compiled for this processor, for Python and C++."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.export import ExportedProgram

from lightning_app.export.objects import Objects
from lightning_app.util.errors import InputError

SUFFIX: Final = ".pt2"
METADATA: Final = "contextzoo"  # of the package's own
COMPILERS: Final = ("g++", "clang++", "cl")


def check(graph: torch.nn.Module) -> None:
    """Look for a compiler, and at what it would compile.

    Raises:
        InputError: there is none, or the graph computes the sizes of its maps. PyTorch 2.14 then takes what a
            convolution gives for laid out otherwise than it is, and the package finds other objects.
    """
    if isinstance(graph, Objects):
        raise InputError("AOTInductor compiles detectors wrongly (PyTorch 2.14): export --to pt2 or onnx")
    wanted = (os.environ["CXX"],) if os.environ.get("CXX") else COMPILERS
    if not any(map(shutil.which, wanted)):
        raise InputError(
            f"AOTInductor needs a C++ compiler, and there is no {' or '.join(wanted)}: install one (Debian: apt "
            "install g++), name it in CXX, or export --to pt2"
        )


def write(program: ExportedProgram, path: Path, outputs: Sequence[str], metadata: Mapping[str, Any]) -> None:
    """Compile the program and pack it."""
    text = json.dumps({**metadata, "outputs": [*outputs]})
    with tempfile.TemporaryDirectory() as scratch:
        package = torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(Path(scratch) / "package.pt2"),
            inductor_configs={"aot_inductor.metadata": {METADATA: text}},
        )
        shutil.copy(package, path)


def load(path: Path) -> Callable[[Tensor], list[Tensor]]:
    """What runs the package."""
    with path.open("rb") as file:
        package = torch._inductor.aoti_load_package(file)

    def run(images: Tensor) -> list[Tensor]:
        result = package(images)
        return [result] if isinstance(result, Tensor) else list(result)

    return run
