"""Tensors of checkpoint files from anywhere; nothing in them is executed."""

import hashlib
import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import lightning_app
from lightning_app.errors import InputError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint, on the CPU.

    A pickle is read once: its tensors are saved beside it (``model.pth`` -> ``model.safetensors``) and come from there
    the next time, as long as the pickle is the same.

    Raises:
        InputError: no such file, or no checkpoint.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    beside = path.with_suffix(".safetensors")
    try:
        if path == beside or _is_copy_of(path, beside):
            tensors: dict[str, Tensor] = load_file(beside)
            return tensors
    except (OSError, SafetensorError) as error:
        if path == beside:
            raise InputError(f"{path} is no safetensors file ({error})") from error
    tensors = _state_dict(unpickle(path), path)
    _save_beside(path, beside, tensors)
    return tensors


def unpickle(path: Path) -> Any:
    """What ``torch.save`` wrote, with a :class:`Placeholder` for whatever is neither tensor nor plain container.

    Raises:
        InputError: the file cannot be read so.
    """
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # it names a class that torch does not trust
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_RESTRICTED)
    except Exception as error:  # a damaged file can make the reader raise anything
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(f"{path} is no checkpoint that can be read safely ({reason})") from error


class Placeholder:
    """Stands for an object of a class that is not trusted: takes everything, does nothing."""

    __slots__ = ()

    def __new__(cls, *_: Any, **__: Any) -> "Placeholder":
        return super().__new__(cls)

    def __setstate__(*_: Any) -> None: ...
    def __setitem__(self, key: Any, value: Any) -> None: ...
    def append(self, item: Any) -> None: ...
    def extend(self, items: Any) -> None: ...
    def add(self, item: Any) -> None: ...


class _RebuildTensor:
    """A tensor from its storage; an object without attributes, since a pickle could set those of a function."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
        return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, data: Tensor, *_: Any) -> Tensor:
        return data


_TRUSTED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _TRUSTED.get((module, name), Placeholder)


def _load(file: io.BufferedIOBase, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_RESTRICTED = SimpleNamespace(__name__=__name__, Unpickler=_Unpickler, load=_load)  # all that torch asks of a module


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    tensors = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(tensors, Mapping) or not tensors:
        raise InputError(f"{path} holds no state dict, only {type(content).__name__}")
    if others := [str(name) for name, value in tensors.items() if not isinstance(value, Tensor)]:
        raise InputError(f"The state dict of {path} holds more than tensors: {', '.join(others[:3])}")
    return {str(name): tensor for name, tensor in tensors.items()}


def _provenance(path: Path) -> dict[str, str]:
    status = path.stat()
    return {"source": path.name, "size": str(status.st_size), "modified": str(status.st_mtime_ns)}


def _is_copy_of(path: Path, beside: Path) -> bool:
    if not beside.is_file():
        return False
    with safe_open(beside, "pt") as file:
        return _provenance(path).items() <= (file.metadata() or {}).items()


def _save_beside(path: Path, beside: Path, tensors: Mapping[str, Tensor]) -> None:
    if beside.exists() and not _was_made_from(path, beside):
        return  # somebody else's file of that name
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    header = _provenance(path) | {
        "sha256": digest,
        "converter": f"contextzoo {lightning_app.__version__}",
        "format": "pt",
    }
    own = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    part = beside.with_name(f".{beside.name}.{os.getpid()}")
    try:
        save_file(own, part, metadata=header)
        part.replace(beside)
    except (OSError, SafetensorError):  # no room, or not ours to write: the pickle is read again the next time
        part.unlink(missing_ok=True)


def _was_made_from(path: Path, beside: Path) -> bool:
    try:
        with safe_open(beside, "pt") as file:
            return (file.metadata() or {}).get("source") == path.name
    except (OSError, SafetensorError):
        return False
