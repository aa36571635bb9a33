"""The headers of many pictures at once, remembered until a file changes."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from lightning_app.data.bad_file import BadFile
from lightning_app.data.images import read_header, require_8_bit, require_same_size
from lightning_app.data.picture_files import Header
from lightning_app.data.pixel_limit import require_few_enough_pixels
from lightning_app.util.remembered import cache_folder, recall, remember


def read_headers(paths: Iterable[Path], root: Path) -> dict[Path, Header | BadFile]:
    """The header of each picture, or what is wrong with it; those below one ``root`` are remembered together."""
    memory = cache_folder("headers") / f"{sha256(str(root.absolute()).encode()).hexdigest()}.json"
    known = recall(memory)
    known = known if isinstance(known, dict) else {}
    with ThreadPoolExecutor() as pool:
        found = dict(pool.map(lambda path: _read(path, known.get(str(path.absolute()))), paths))
    new = {
        str(path.absolute()): [stamp, asdict(header)]
        for path, (stamp, header) in found.items()
        if isinstance(header, Header)
    }
    if any(known.get(path) != value for path, value in new.items()):
        remember(memory, known | new)
    return {path: header for path, (_, header) in found.items()}


def check_headers(pairs: Iterable[tuple[Path, Path | None]], root: Path) -> list[BadFile]:
    """What is wrong with images and their masks, as far as their headers tell."""
    pairs = [(image, mask if mask and mask.suffix != ".mat" else None) for image, mask in pairs]
    headers = read_headers((path for pair in pairs for path in pair if path), root)
    faults = []
    for image, mask in pairs:
        try:
            header = _sound(headers[image])
            require_8_bit(header, image)
            if mask is not None:
                require_same_size(header.size, _sound(headers[mask]).size, mask)
        except BadFile as error:
            faults.append(error)
    return faults


def _sound(header: Header | BadFile) -> Header:
    if isinstance(header, BadFile):
        raise header
    return header


def _read(path: Path, known: Any) -> tuple[Path, tuple[list[int], Header | BadFile]]:
    """A picture's header, from memory where its size and time are the same."""
    stamp: list[int] = []
    header = None
    try:
        with suppress(OSError):
            state = path.stat()
            stamp = [state.st_size, state.st_mtime_ns]
        with suppress(TypeError, ValueError):  # whatever the memory holds
            before, values = known
            if before == stamp:
                header = Header(**values | {"size": tuple(values["size"])})
        if header is None:
            return path, (stamp, read_header(path))
        require_few_enough_pixels(header.size, path)  # the limit may be another today
        return path, (stamp, header)
    except BadFile as error:
        return path, (stamp, error)
