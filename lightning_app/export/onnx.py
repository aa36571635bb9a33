"""ONNX files, which onnxruntime and many other programs run."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.export import ExportedProgram

from lightning_app.export.graphs import AXES, INPUT
from lightning_app.util.errors import InputError
from lightning_app.util.extras import install

SUFFIX: Final = ".onnx"
NEEDS: Final = ("onnx", "onnxscript", "onnxruntime")
ROWS: Final = {"boxes": "objects"}  # what the first axis counts where it is not the images
MOST_BYTES: Final = 2**31 - 1  # of a protobuf message


def check(graph: torch.nn.Module) -> None:
    """Look whether the graph can become such a file here.

    Raises:
        InputError: a library is missing, or the weights are too many.
    """
    if missing := [name for name in NEEDS if find_spec(name) is None]:
        raise InputError(f"ONNX needs {', '.join(missing)}: {install('export')}")
    size = sum(each.numel() * each.element_size() for each in graph.state_dict().values())
    if size > MOST_BYTES:
        raise InputError(
            f"The weights are {size / 1e9:.1f} GB, and an ONNX file holds 2 GB: give --half, or --to pt2 or aoti"
        )


def write(program: ExportedProgram, path: Path, outputs: Sequence[str], metadata: Mapping[str, Any]) -> None:
    """Write the program as an ONNX file, its axes by name."""
    with redirect_stdout(StringIO()):
        made: Any = torch.onnx.export(program, dynamo=True, verbose=False, input_names=[INPUT], output_names=[*outputs])
    sides = made.model.graph.inputs[0].shape
    names = {sides[axis]: name for axis, name in AXES.items() if not isinstance(sides[axis], int)}
    if outputs[0] in ROWS and not isinstance(rows := made.model.graph.outputs[0].shape[0], int):
        names[rows] = ROWS[outputs[0]]
    made.rename_axes(names)
    for key, value in metadata.items():
        made.model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value)
    made.save(str(path), external_data=False)


def load(path: Path) -> Callable[[Tensor], list[Tensor]]:
    """What runs the file, on as many threads as torch takes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(each) for each in session.run(None, {INPUT: images.numpy()})]

    return run
