"""Checkpoints on disk: whole or not there, and with a checksum that is verified when they are read."""

import errno
import hashlib
import os
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightning_app.reading.specs import shown
from lightning_app.reading.unpickle import check_pickle
from lightning_app.util.errors import InputError
from lightning_app.util.files import check_file, replacing

SUFFIX: Final = ".ckpt"
LAST: Final = "last.ckpt"
PREVIOUS: Final = "previous.ckpt"  # the last but one
PARTS: Final = ("config", "hyper_parameters", "state_dict")  # that every checkpoint has
PREFIX: Final = b"sha256:"  # of the comment that ends the file: a checkpoint is a zip archive, which may have one
COMMENT: Final = len(PREFIX) + 64
REMOVED: Final = ("best_model_path", "kth_best_model_path", "last_model_path", "best_k_models")  # of ModelCheckpoint


class Damaged(InputError):
    """A checkpoint whose content is not what was written."""


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's plugin to save and load checkpoints, for a run whose folder is ``run``.

    A checkpoint is written beside its place, never through the temporary folder, and takes it when it is on the disk.
    Where it is ``last.ckpt``, the one before stays as ``previous.ckpt``.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        if not self.run.is_dir():  # deleted in mid-run; to make it again would hide that
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.run))
        path = Path(path)
        with replacing(path) as temporary:
            _write(checkpoint, temporary)
            if path.name == LAST and path.exists():
                with suppress(OSError), replacing(path.with_name(PREVIOUS)) as link:  # not every disk has hard links
                    os.link(path, link)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, and nothing else: what a resumed file remembers may have any name, or be a link."""
        if "://" in str(path) or (Path(path).suffix == SUFFIX and os.path.realpath(path) == str(path)):
            super().remove_checkpoint(path)


def read(path: Path) -> dict[str, Any]:
    """What ``contextzoo fit`` saved, verified.

    Raises:
        Damaged: the file is not as it was written.
        InputError: no such file, or another kind of file.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise Damaged(f"{path} is damaged: it is empty")
    check_file(path)
    if not _is_intact(path):
        raise Damaged(f"{path} is not a checkpoint of this program, or damaged: its checksum differs")
    try:
        check_pickle(path)
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a foreign file makes torch raise
        raise InputError(f"{path} is not a checkpoint of this program ({type(error).__name__})") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in PARTS):
        reason = isinstance(content, dict) and content.get("undescribed")
        reason = " ".join(str(reason or "contextzoo fit did not write it")[:200].split())
        raise InputError(f"{path} does not say how to rebuild its model: {reason}")
    for state in ("state_dict", "current_model_state"):
        tensors = content.get(state, {})
        if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
            raise InputError(f"{path} does not say how to rebuild its model: its {state} holds more than tensors")
    return content


def check_states(states: Any, path: str | Path) -> None:
    """Raise an InputError where callbacks remember more than checkpoints: they delete what they remember.

    Looks at each object once, since a file may hold a few that contain one another without end.
    """
    seen, left = set(), [states]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, str) and ("://" in each or ".." in re.split(r"[/\\]", each)):
            raise InputError(f"{path}: its callbacks remember {shown(each)}, which is no file of a run")
        if isinstance(each, Mapping):
            for name in REMOVED:
                value = each.get(name)
                for file in value if isinstance(value, Mapping) else [value]:
                    if isinstance(file, str) and file and Path(file).suffix != SUFFIX:
                        raise InputError(f"{path}: its callbacks remember {shown(file)}, which is no checkpoint")
            left += [*each, *each.values()]
        elif isinstance(each, list | tuple | set):
            left += each


class _Hashed:
    """A file that computes the SHA-256 of what is written to it."""

    def __init__(self, file: Any) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.sha256.update(content)
        return int(self.file.write(content))

    def flush(self) -> None:
        self.file.flush()


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    """``torch.save``, and the checksum as the archive's comment, whose length stands in the two bytes before it."""
    with path.open("wb") as file:
        hashed = _Hashed(file)
        try:
            torch.save(checkpoint, hashed)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None  # as of a full disk
        file.seek(-2, os.SEEK_CUR)
        file.write(COMMENT.to_bytes(2, "little") + PREFIX + hashed.sha256.hexdigest().encode())


def _is_intact(path: Path) -> bool:
    """Whether the content is that of the checksum; a file without one has a CRC-32 for each of its records."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        content = size - COMMENT - 2
        file.seek(max(content, 0))
        end = file.read()
        if not end.startswith(COMMENT.to_bytes(2, "little") + PREFIX):
            try:
                archive = zipfile.ZipFile(file)
                return not archive.comment and archive.testzip() is None
            except Exception:  # whatever a broken archive makes zipfile raise
                return False
        file.seek(0)
        sha256 = hashlib.sha256()
        while piece := file.read(min(1 << 20, content - file.tell())):
            sha256.update(piece)
        sha256.update(b"\0\0")  # the length of no comment, as it was when the sum was taken
        return sha256.hexdigest().encode() == end[2 + len(PREFIX) :]
