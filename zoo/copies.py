"""Copies of published weights as safetensors, which loading writes beside a pickle: their checksum, without torch."""

import hashlib
import json
import struct
from io import BufferedReader
from pathlib import Path
from typing import Final

from zoo import files, header
from zoo.errors import ZooError

_CHECKSUM: Final = "checksum"  # in the metadata, of all else; lightning_app/reading/tensor_files.py writes it
_NAMES: Final = {  # types as safetensors and as torch spells them
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def copy_of(path: Path) -> Path | None:
    """The copy that lies beside a pickle, where there is one."""
    beside = path.with_suffix(".safetensors")
    return beside if beside != path and files.is_file(beside) else None


def intact(path: Path) -> bool:
    """Whether a copy's content is what its checksum says; True of one that carries none and so is never used."""
    try:
        with files.open_plain(path) as file:
            return _intact(file)
    except OSError as error:
        raise ZooError(f"{path}: {error.strerror}") from None
    except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError, struct.error):
        return False  # whatever a damaged header leads to


def _intact(file: BufferedReader) -> bool:
    start, tensors = header.read(file)
    metadata = tensors.pop("__metadata__", {})
    if _CHECKSUM not in metadata:
        return True
    rest = {key: metadata[key] for key in sorted(metadata) if key != _CHECKSUM}
    digest = hashlib.sha256(json.dumps(rest).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        begin, end = tensor["data_offsets"]
        digest.update(json.dumps([name, f"torch.{_NAMES[tensor['dtype']]}", tensor["shape"]]).encode())
        file.seek(start + begin)
        digest.update(file.read(max(end - begin, 0)))
    return bool(metadata[_CHECKSUM] == f"sha256:{digest.hexdigest()}")
