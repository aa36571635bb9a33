"""Safetensors files that carry a checksum of themselves."""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_app.util.errors import InputError
from lightning_app.util.files import check_file

CHECKSUM: Final = "checksum"  # in a file's metadata: sha256 of all else in it
LARGEST_HEADER: Final = 16 * 2**20  # bytes; that of a thousand tensors has 100 thousand


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file, verified where it carries a checksum.

    Memory stays within the file's size: every tensor lies inside it, and none overlaps another.

    Raises:
        InputError: no such file, no safetensors file, or a damaged one.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
        if length > LARGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        intact = CHECKSUM not in metadata or metadata[CHECKSUM] == checksum(tensors, metadata)
    except Exception as error:  # a damaged file can make the reader raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"{path} is no safetensors file that can be read ({reason}). Get the file again.") from None
    if not intact:
        raise InputError(f"{path} is damaged: its checksum is not that of its content. Get the file again.")
    return tensors, metadata


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file with its checksum.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    own = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(own, path, {**metadata, CHECKSUM: checksum(own, metadata)})
    umask = os.umask(0)  # which can only be read by setting it
    os.umask(umask)
    path.chmod(0o666 & ~umask)  # safetensors makes files that their owner alone can read
    with path.open("rb") as file:
        os.fsync(file.fileno())


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """sha256 over metadata, names, types, shapes and values; the order in the file does not matter."""
    digest = hashlib.sha256(json.dumps({key: metadata[key] for key in sorted(metadata) if key != CHECKSUM}).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()}"
