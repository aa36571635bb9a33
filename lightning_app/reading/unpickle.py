"""Checkpoints that torch.save wrote, from anywhere: read without torch.load, so that nothing in them is executed.

Consulted: torch.serialization and torch._utils, for the two formats.
"""

import io
import math
import mmap
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Final

import torch
from torch import Tensor

from lightning_app.util.errors import InputError
from lightning_app.util.files import check_file

MAGIC: Final = 0x1950A86A20F9469CFC6C  # of the format before torch 1.6
DTYPES: Final = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
}


def unpickle(path: Path) -> Any:
    """What ``torch.save`` wrote, with a ``Placeholder`` for whatever is neither tensor nor plain container.

    Memory stays within the file's size: nothing in it may be compressed, and every tensor must lie in what is stored.

    Raises:
        InputError: the file cannot be read so.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
            return _read_zip(path) if zipped else _read_legacy(file)
    except Exception as error:  # a damaged file can make the reader raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"{path} is no checkpoint that can be read safely ({reason})") from error


class Placeholder:
    """Stands for an object of a class that is not trusted: takes everything, does nothing."""

    __slots__ = ()

    def __new__(cls, *_: Any, **__: Any) -> "Placeholder":
        return super().__new__(cls)

    def append(self, item: Any) -> None: ...
    def extend(self, items: Any) -> None: ...
    def add(self, item: Any) -> None: ...


class _RebuildTensor:
    """A tensor from its storage; an object without attributes, as the next one."""

    __slots__ = ()

    def __call__(self, storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or len(size) > 64 or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise ValueError("a tensor whose size or stride is none")
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if math.prod(size) > len(storage) or (0 not in size and last >= len(storage)):
            raise ValueError(f"a tensor of size {list(size)} on {len(storage)} stored values")
        return storage.as_strided(size, stride, offset)


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, data: Tensor, *_: Any) -> Tensor:
        return data


_FUNCTIONS = {
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
}


_Plain: Any = pickle._Unpickler  # seen in Python 3.11; in C a memo that lies takes 32 GB


class _Unpickler(_Plain):  # type: ignore[misc]
    """Knows dictionaries, tensors and plain containers; calls nothing else, and sets no attribute of anything.

    Keys that are neither text nor number are left out, and sets are: to hash a tuple of tuples of the same tuples takes
    for ever.
    """

    def __init__(self, file: Any, storage: Callable[[torch.dtype, str, int], Tensor]) -> None:
        super().__init__(file, encoding="utf-8")
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        return _FUNCTIONS.get((module, name), Placeholder)

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, count, *view = pid
        known = kind == "storage" and isinstance(dtype, torch.dtype) and type(key) in (str, int)
        if not known or type(count) is not int or count < 0 or view not in ([], [None]):
            return Placeholder()
        return self.storage(dtype, str(key), count)

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        if function is dict:
            self.stack[-1] = _plain(arguments[0] if arguments else ())
        elif isinstance(function, _RebuildTensor | _RebuildParameter):
            self.stack[-1] = function(*arguments)
        else:
            self.stack[-1] = Placeholder()

    def load_build(self) -> None:
        self.stack.pop()

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(_plain(zip(items[::2], items[1::2], strict=True)))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([(key, value)])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._update(zip(items[::2], items[1::2], strict=True))

    def _update(self, pairs: Iterable[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_plain(pairs))

    def load_empty_set(self) -> None:
        self.append(Placeholder())

    def load_frozenset(self) -> None:
        self.pop_mark()
        self.append(Placeholder())

    dispatch = {**_Plain.dispatch}  # noqa: RUF012
    del dispatch[pickle.BYTEARRAY8[0]]  # it would be made before it is read
    dispatch |= {
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.EMPTY_SET[0]: load_empty_set,
        pickle.FROZENSET[0]: load_frozenset,
    }


class _Checker(_Unpickler):
    """Reads as torch.load would, and stops at what takes it for ever."""

    def _update(self, pairs: Iterable[Any]) -> None:
        pairs = list(pairs)
        if not all(isinstance(key, str | bytes | int | float) for key, _ in pairs):
            raise ValueError("a key that is neither text nor number")
        super()._update(pairs)

    def load_dict(self) -> None:
        raise ValueError("a dictionary as torch.save does not write it")

    load_frozenset = load_dict

    dispatch = {**_Unpickler.dispatch, pickle.DICT[0]: load_dict, pickle.FROZENSET[0]: load_dict}  # noqa: RUF012


def check_pickle(path: Path) -> None:
    """Raise a ValueError where torch.load would take for ever, or more memory than the file has bytes.

    No tensor is read: those of the file are made without memory.
    """
    with zipfile.ZipFile(path) as archive:
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise ValueError("compressed, which torch.save does not do")
        content = next(record for record in archive.infolist() if record.filename.partition("/")[2] == "data.pkl")
        _Checker(
            io.BytesIO(archive.read(content)), lambda dtype, _, count: torch.empty(count, dtype=dtype, device="meta")
        ).load()


def _plain(pairs: Iterable[Any]) -> dict[Any, Any]:
    """The pairs whose keys are text or numbers."""
    return {key: value for key, value in pairs if isinstance(key, str | bytes | int | float)}


def _tensor(data: bytes, dtype: torch.dtype, count: int) -> Tensor:
    """``count`` stored values, as a tensor of one dimension."""
    if count * dtype.itemsize > len(data):
        raise ValueError(f"{count} values of {dtype} in {len(data)} bytes")
    return torch.frombuffer(bytearray(data), dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


def _read_zip(path: Path) -> Any:
    """The format since torch 1.6: a pickle and one record for each storage, none of them compressed."""
    with zipfile.ZipFile(path) as archive:
        records = {record.filename.partition("/")[2]: record for record in archive.infolist()}
        if "constants.pkl" in records:
            raise ValueError("a TorchScript archive, which is a program: save its state_dict")
        stored = sum(record.file_size for record in records.values())
        if any(record.compress_type != zipfile.ZIP_STORED for record in records.values()) or (
            stored > path.stat().st_size
        ):
            raise ValueError(f"compressed: {stored} bytes in {path.stat().st_size}, which torch.save does not do")
        if "byteorder" in records and archive.read(records["byteorder"]) != b"little":
            raise ValueError("of another byte order")
        storages: dict[tuple[torch.dtype, str], Tensor] = {}

        def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
            if (dtype, key) not in storages:
                storages[dtype, key] = _tensor(archive.read(records[f"data/{key}"]), dtype, count)
            return storages[dtype, key][:count]

        return _Unpickler(io.BytesIO(archive.read(records["data.pkl"])), storage).load()


def _read_legacy(file: IO[bytes]) -> Any:
    """The format before: pickles one after the other, then the storages."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        storages: dict[str, Tensor] = {}
        room = len(content)

        def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
            nonlocal room
            if key not in storages:
                room -= count * dtype.itemsize
                if room < 0:
                    raise ValueError(f"{count} values of {dtype} in {len(content)} bytes")
                storages[key] = torch.empty(count, dtype=dtype)
            return storages[key]

        def load() -> Any:
            return _Unpickler(content, storage).load()

        if load() != MAGIC:
            raise ValueError("no magic number")
        load(), load()  # the version of the format, and the machine's byte order and sizes
        found = load()
        for key in load():
            (count,) = struct.unpack("<q", content.read(8))
            into = storages[str(key)]
            if count != len(into):
                raise ValueError(f"{count} values stored where {len(into)} are told of")
            into.copy_(_tensor(content.read(count * into.element_size()), into.dtype, count))
        return found


def state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's content, under their names.

    Raises:
        InputError: there are none, or other things among them.
    """
    tensors = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(tensors, Mapping) or not tensors:
        raise InputError(f"{path} holds no state dict, only {type(content).__name__}")
    others = [name for name, value in tensors.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if others:
        shown = ", ".join(name[:80] if isinstance(name, str) else type(name).__name__ for name in others[:3])
        raise InputError(f"The state dict of {path} holds more than tensors: {shown}")
    return dict(tensors)
