"""Where published weights go: a folder, which they enter in one step, or a repository of the Hugging Face hub."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lightning_app.util.errors import InputError
from lightning_app.util.files import make_folder
from lightning_app.weights import hub, shared
from lightning_app.weights.published import SHIPS

UNFINISHED: Final = ".unfinished"  # marks a folder whose entry is not written yet


def publish(stage: Path, to: str, id: str) -> Path | str:
    """Bring what is staged to its place; returns that folder, or the address of the repository.

    Raises:
        InputError: the hub does not take it.
    """
    if to.startswith(hub.SCHEME):
        return hub.push(stage, to.removeprefix(hub.SCHEME).strip("/"), f"Add {id}")
    return _move(stage, _folder(to, id))


def finish(place: Path | str) -> None:
    """Take the mark off, now that the index knows them."""
    if isinstance(place, Path):
        (place / UNFINISHED).unlink()


def url_of(to: str, id: str) -> str:
    """The address of the weights once they are there."""
    file = f"{id}.safetensors"
    if to.startswith(hub.SCHEME):
        return f"{to.rstrip('/')}/{file}"
    path = _folder(to, id).resolve() / file
    return path.relative_to(SHIPS.parent).as_posix() if path.is_relative_to(SHIPS) else path.as_uri()


def urls_of(to: str, parts: Mapping[str, str]) -> list[str]:
    """The addresses of shared parts, given with their sha256."""
    folder = Path(to).expanduser().resolve() / shared.FOLDER
    ships = folder.is_relative_to(SHIPS)
    return [
        shared.address(digest) if ships else (folder / f"{digest}.safetensors").as_uri() for digest in parts.values()
    ]


def address_of(to: str, id: str) -> str:
    """What ``contextzoo.load`` finds the weights by once they are there."""
    return to.rstrip("/") if to.startswith(hub.SCHEME) else id


@contextmanager
def staged(to: str, id: str) -> Iterator[Path]:
    """An empty folder on the right disk, which is gone afterwards.

    Raises:
        InputError: there is something under their name already.
    """
    parent = None
    if not to.startswith(hub.SCHEME):
        folder = _folder(to, id)
        if (folder / UNFINISHED).is_file():  # stopped in mid-way, in front of the index
            shutil.rmtree(folder)
        if folder.exists():
            raise InputError(f"{folder} is there already: give another --id or --to")
        parent = folder.parent
        make_folder(parent)
        for stopped in parent.glob(f".{id}.*"):
            shutil.rmtree(stopped)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{id}.") as stage:
        yield Path(stage)


def _folder(to: str, id: str) -> Path:
    return Path(to).expanduser() / id


def _move(stage: Path, folder: Path) -> Path:
    """The staged files under their own name in one step, marked as unfinished until the index knows them."""
    files = list(stage.iterdir())
    complete = stage / folder.name
    complete.mkdir()
    (complete / UNFINISHED).touch()
    for file in files:
        file.rename(complete / file.name)
    complete.rename(folder)
    stage.rmdir()
    return folder
