"""Parts of a network that several weights have in common: one file, whose name is its sha256, beside all of them."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

from lightning_app.reading import tensor_files
from lightning_app.util.errors import InputError
from zoo import cache
from zoo.entry import SHIPPED, SharedFile

FOLDER: Final = "shared"  # beside the folders of the weights that refer to it
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def address(digest: str) -> str:
    """Where such a file ships with the repository."""
    return f"{SHIPPED}/{FOLDER}/{digest}.safetensors"


def read(shared: Mapping[str, str], path: Path) -> dict[str, Tensor]:
    """The tensors that the weights in ``path`` share, verified.

    Args:
        shared: part of the network -> sha256 of its file, as the weights' header says.

    Raises:
        InputError: a file is not there, is another, or holds tensors of other parts.
    """
    tensors: dict[str, Tensor] = {}
    for part, digest in shared.items():
        if not _SHA256.fullmatch(digest):
            raise InputError(f"{path}: its {part} is to be in the file {digest!r:.80}, which is no sha256")
        file = next((each for each in _places(path, digest) if each.is_file()), None)
        if file is None:
            raise InputError(
                f"{path} holds no {part}, which it shares with other weights: put {digest}.safetensors beside it "
                f"(contextzoo zoo download {path.stem} brings both)"
            )
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise InputError(f"{file} is damaged: its name is not its sha256. Get the file again.")
        found, _ = tensor_files.read(file)
        if strange := next((name for name in found if name.partition(".")[0] != part), None):
            raise InputError(f"{file} holds {strange}, which is not of the {part}")
        tensors |= found
    return tensors


def write(tensors: Mapping[str, Tensor], folder: Path) -> tuple[str, Path | None]:
    """Put a part into a file of ``folder``; returns its sha256, and its path where it is new."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    part = target / ".part.safetensors"
    tensor_files.write(part, tensors, {})  # of several fields the order would change from file to file
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    path = target / f"{digest}.safetensors"
    is_new = not path.exists()
    part.replace(path)
    return digest, path if is_new else None


def _places(path: Path, digest: str) -> Iterator[Path]:
    """Where the file may lie: beside the weights, in the folder of what ships, or among downloads."""
    file = SharedFile(address(digest))
    yield path.parent / file.filename
    yield path.parent.parent / FOLDER / file.filename
    yield cache.target(file)
    if ships := cache.shipped(file):
        yield ships
