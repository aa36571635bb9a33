"""What a safetensors file says of itself, read without torch."""

import json
import struct
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from zoo import files
from zoo.errors import shown

DESCRIPTION: Final = "contextzoo"  # in the metadata: what rebuilds the model, as JSON
_LARGEST: Final = 16 * 2**20  # bytes
_WRONG: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, struct.error)


def read(file: BufferedReader) -> tuple[int, dict[str, dict[str, Any]]]:
    """Where the tensors begin, and the header: each tensor's type, shape and place, and ``__metadata__``.

    Raises:
        ValueError, struct.error: it is none.
    """
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _LARGEST:
        raise ValueError("a header of that length")
    return 8 + length, json.loads(file.read(length))


def description(path: Path) -> dict[str, Any]:
    """What a file of ours says of itself; empty where it says nothing.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with files.open_plain(path) as file:
            _, header = read(file)
        return dict(json.loads(header["__metadata__"][DESCRIPTION]))
    except _WRONG:
        return {}  # whatever a damaged header leads to


def parts(described: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Class and arguments of each part of the model that a file describes; empty where it describes none."""
    try:
        return {
            shown(part): (spec["class_path"].rpartition(".")[2], dict(spec.get("init_args") or {}))
            for part, spec in described["model"].items()
            if isinstance(spec, dict) and "class_path" in spec
        }
    except _WRONG:
        return {}
