"""Features of a frozen backbone, kept on disk: an image that it has seen before costs reading instead of computing."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lightning_app.backbones.base import Backbone
from lightning_app.reading import tensor_files
from lightning_app.util.errors import InputError

GB = 10**9
ROOM = re.compile(r"(.+)-[0-9a-f]{12}")  # a folder of ours
FILE = re.compile(r"[0-9a-f]{32}\.safetensors(\.\d+)?")  # and what lies in it, whole or begun


class Room(NamedTuple):
    """What a folder of caches holds of one backbone with its weights."""

    path: Path
    images: int
    size: int  # in bytes

    def __str__(self) -> str:
        return f"{self.path}: {self.images} images, {self.size / GB:.2f} GB"


class FeatureCache:
    """Answers a backbone's calls: each image is computed once, and read from its file in memory-mapped form thereafter.

    ``FOLDER/BACKBONE-HASH/KEY.safetensors`` holds the levels of one image, with a checksum. HASH is of the backbone's
    description and weights, KEY of the image as the backbone gets it and of the precision. So other weights, another
    augmentation or a changed photograph are never mistaken for these, runs and devices can share a folder, and what an
    interrupted run has computed stays. The batch is not part of the key: in evaluation each image stands alone.

    Where the folder is full, by its limit or by the disk's, and where a file is damaged, images are computed as without
    it; one line says so.

    Args:
        backbone: whose calls are answered, in evaluation mode and without gradients.
        folder: may hold the features of any number of backbones.
        limit: bytes that ``folder`` may have.

    Raises:
        InputError: the backbone is not frozen, or the folder cannot be written to.
    """

    def __init__(self, backbone: Backbone, folder: Path, limit: float) -> None:
        require_frozen(backbone)
        name = getattr(backbone, "name", type(backbone).__name__)
        self.backbone, self.compute = backbone, backbone.forward
        self.room = folder.expanduser() / f"{name}-{_hash(backbone)[:12]}"
        self.limit, self.full = limit, False
        try:
            self.room.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"model.feature_cache {folder} cannot be written to ({error.strerror})") from None
        self.size = sum(room.size for room in rooms(self.room.parent))
        backbone.forward = torch.compiler.disable(self.levels)  # type: ignore[method-assign,no-untyped-call]

    def __str__(self) -> str:
        """What it holds by now, in a line."""
        folder, name = self.room.parent, self.room.name
        held = {room.path.name: room for room in rooms(folder)}
        others = [each for each in held if each != name and each.rpartition("-")[0] == name.rpartition("-")[0]]
        line = f"Feature cache: {held[name]}, {self.size / GB:.1f} of {self.limit / GB:g} GB taken"
        if others and not held[name].images:
            line += f"; {', '.join(others)} is of other weights (contextzoo cache {folder})"
        return line

    @torch.no_grad()
    def levels(self, images: Tensor) -> list[Tensor]:
        """What the backbone makes of images. Shape: as the backbone's own."""
        require_frozen(self.backbone)
        files = [self.room / f"{key}.safetensors" for key in _keys(images)]
        known = [self._read(file) for file in files]
        missing = [place for place, levels in enumerate(known) if levels is None]
        if missing:
            computed = self.compute(images[missing])
            for number, place in enumerate(missing):
                known[place] = [level[number].cpu().clone() for level in computed]  # two may be one in memory
                self._write(files[place], known[place] or [])
        form = torch.preserve_format if images.is_contiguous() else torch.channels_last
        return [
            torch.stack(level).to(images.device, memory_format=form, non_blocking=True)
            for level in zip(*(levels for levels in known if levels is not None), strict=True)
        ]

    def _read(self, file: Path) -> list[Tensor] | None:
        if not file.is_file():
            return None
        try:
            tensors, _ = tensor_files.read(file)
        except InputError as error:
            print(f"{str(error).partition(' Get the file')[0]} It is computed anew.", file=sys.stderr)
            with suppress(OSError):
                file.unlink()
            return None
        return [tensors[str(level)] for level in range(len(tensors))]

    def _write(self, file: Path, levels: list[Tensor]) -> None:
        size = sum(level.nbytes for level in levels)
        if not self.full and self.size + size > self.limit:
            self._stop(f"holds {self.size / GB:.1f} GB, and model.feature_cache_gb is {self.limit / GB:g}")
        if self.full:
            return
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            tensor_files.write(temporary, {str(number): level for number, level in enumerate(levels)}, {})
            temporary.replace(file)
            self.size += size
        except (OSError, SafetensorError) as error:
            self._stop(f"cannot be written to ({error})")
        finally:
            temporary.unlink(missing_ok=True)

    def _stop(self, why: str) -> None:
        self.full = True
        folder = self.room.parent
        print(
            f"The feature cache {folder} {why}: what is not in it is computed each time (contextzoo cache {folder})",
            file=sys.stderr,
        )


def require_frozen(backbone: nn.Module) -> None:
    """Raise an InputError where training changes a backbone."""
    if backbone.training or any(each.requires_grad for each in backbone.parameters()):
        raise InputError("model.feature_cache is for a backbone that stays as it is: give --model.freeze backbone too")


def rooms(folder: Path) -> list[Room]:
    """What a folder of caches holds, by name."""
    found = (path for path in sorted(folder.glob("*/")) if ROOM.fullmatch(path.name))
    return [Room(path, len(sizes := [*_sizes(path).values()]), sum(sizes)) for path in found]


def clean(room: Room) -> None:
    """Remove it, but for files that are none of the cache's."""
    for file in _sizes(room.path):
        file.unlink(missing_ok=True)
    with suppress(OSError):
        room.path.rmdir()


def _sizes(path: Path) -> dict[Path, int]:
    """The cache's files in a folder, and their bytes."""
    sizes = {}
    for file in path.iterdir():
        if FILE.fullmatch(file.name):
            with suppress(FileNotFoundError):  # another process has just renamed or removed it
                sizes[file] = file.stat().st_size
    return sizes


def _hash(backbone: Backbone) -> str:
    """Of what a backbone is and of its weights, wherever these come from."""
    arguments = backbone.description()["init_args"]
    what = {name: value for name, value in arguments.items() if name != "pretrained"}
    return tensor_files.checksum(backbone.state_dict(), {"backbone": repr(what)}).removeprefix("sha256:")


def _keys(images: Tensor) -> Iterator[str]:
    """Of each image, its shape, and the precision that it is looked at in."""
    device = images.device.type
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else images.dtype
    for image in images.detach().cpu():
        digest = sha256(f"{device} {precision} {images.dtype} {tuple(image.shape)}".encode())
        digest.update(image.contiguous().flatten().view(torch.uint8).numpy().data)
        yield digest.hexdigest()[:32]
