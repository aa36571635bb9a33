"""State dicts of checkpoint files, kept as safetensors beside them."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

import lightning_app
from lightning_app.reading import tensor_files
from lightning_app.reading.tensor_files import CHECKSUM, LARGEST_HEADER
from lightning_app.reading.unpickle import state_dict, unpickle
from lightning_app.util.errors import InputError
from lightning_app.util.files import check_file, replacing

SHARED = 4  # times its file's size: the largest copy of one whose tensors share their storage


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint, on the CPU.

    A pickle is read once: its tensors are saved beside it (``model.pth`` -> ``model.safetensors``) and come from there
    the next time, as long as the pickle is the same and they have the checksum that they were saved with.

    Raises:
        InputError: no such file, or no checkpoint.
    """
    check_file(path)
    beside = path.with_suffix(".safetensors")
    if path == beside:
        return tensor_files.read(path)[0]
    if _is_ours(path, beside):
        with suppress(InputError):  # damaged: made anew
            tensors, header = tensor_files.read(beside)
            if {CHECKSUM} <= header.keys() and _provenance(path).items() <= header.items():
                return tensors
    tensors = state_dict(unpickle(path), path)
    _save_beside(path, beside, tensors)
    return tensors


def _provenance(path: Path) -> dict[str, str]:
    status = path.stat()
    return {"source": path.name, "size": str(status.st_size), "modified": str(status.st_mtime_ns)}


def _is_ours(path: Path, beside: Path) -> bool:
    """Whether what lies there was made from the pickle: its header says so, in bytes, since it may be damaged."""
    if not beside.is_file():
        return False
    with beside.open("rb") as file:
        return f'"source":{json.dumps(path.name, ensure_ascii=False)}'.encode() in file.read(LARGEST_HEADER)


def _save_beside(path: Path, beside: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the copy, unless somebody else's file has that name or tensors share so much that it would grow large."""
    if beside.exists() and not _is_ours(path, beside):
        return
    if sum(tensor.nbytes for tensor in tensors.values()) > SHARED * path.stat().st_size:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    header = _provenance(path) | {
        "sha256": digest,
        "converter": f"contextzoo {lightning_app.__version__}",
        "format": "pt",
    }
    own = {name: tensor.clone() for name, tensor in tensors.items()}  # safetensors takes no shared storage
    # no room, or not ours to write: the pickle is read again the next time
    with suppress(OSError, SafetensorError), replacing(beside) as part:
        tensor_files.write(part, own, header)
