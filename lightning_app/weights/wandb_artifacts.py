"""Weights & Biases: weights by ``wandb://entity/project/artifact:alias``, such as the best ones of a run."""

import hashlib
import re
import sys
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

from lightning_app.util.errors import InputError
from zoo import cache
from zoo.download import human
from zoo.errors import shown

SCHEME: Final = "wandb://"
ADDRESS: Final = re.compile(
    r"wandb://(?P<artifact>[\w-][\w .-]*/[\w-][\w .-]*/[\w-][\w.-]*)(?::(?P<alias>[\w-][\w.-]*))?"
)
PLAIN: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._+-]{0,200}\.(safetensors|ckpt)")
VERSION: Final = re.compile(r"v\d{1,9}")
LARGEST: Final = 4 * 10**9  # bytes


def fetch(address: str) -> Path:
    """The file of weights in an artifact, fetched once and verified; without an alias, the latest version's.

    A checkpoint is read as every other one: a list of what may stand in it, and nothing of it is run.

    Raises:
        InputError: no such address or artifact, no login, not one file of weights, or other bytes than W&B says.
    """
    found = ADDRESS.fullmatch(address)
    if found is None or ".." in address:
        raise InputError(f"{shown(address)} is no address: give wandb://entity/project/artifact:alias, such as :best")
    folder = cache.home() / "wandb" / found["artifact"].replace("/", "--")
    if cache.offline():
        return _kept(address, folder, found["alias"])
    import wandb

    try:
        artifact = wandb.Api().artifact(f"{found['artifact']}:{found['alias'] or 'latest'}")
        entries, version = dict(artifact.manifest.entries), str(artifact.version)
    except Exception as error:  # of its service, its HTTP library or its server
        raise InputError(f"Cannot look at {address} ({_reason(error)}): wandb login, or look at the name") from None
    if not VERSION.fullmatch(version):
        raise InputError(f"{address}: W&B tells no version, but {shown(version)}")
    entry = entries[_choose(address, entries)]
    if entry.ref is not None:
        raise InputError(f"{address}: {entry.path} is a reference to {shown(str(entry.ref))}, which is not followed")
    if not isinstance(entry.size, int) or entry.size > LARGEST:
        raise InputError(f"{address}: {entry.path} has {entry.size} bytes; {human(LARGEST)} is the most that is taken")
    path = folder / version / str(entry.path)
    if not (path.is_file() and _intact(entry, path)):
        _download(address, artifact, str(entry.path), path)
    return path


def _download(address: str, artifact: Any, name: str, path: Path) -> None:
    """The file under its name once it is whole; a folder of its own keeps W&B's memory of old files out."""
    entry = artifact.get_entry(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as scratch:
            fetched = Path(entry.download(root=scratch, skip_cache=True))
            if not _intact(entry, fetched):
                raise InputError(f"{address}: {name} has other bytes than W&B says: try again")
            fetched.replace(path)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"Cannot fetch {name} of {address} ({_reason(error)})") from None
    print(f"{address}: {human(path.stat().st_size)}, verified", file=sys.stderr)


def _intact(entry: Any, path: Path) -> bool:
    """Whether a file is the artifact's by size and, where W&B keeps it, MD5; our own files carry a checksum besides."""
    if path.stat().st_size != entry.size:
        return False
    if entry.extra:  # names another algorithm
        return True
    with path.open("rb") as file:
        return bool(b64encode(hashlib.file_digest(file, "md5").digest()).decode() == entry.digest)


def _choose(address: str, names: Any) -> str:
    """The one file of weights among an artifact's."""
    plain = sorted(name for name in map(str, names) if PLAIN.fullmatch(name))
    for suffix in (".safetensors", ".ckpt"):
        if chosen := [name for name in plain if name.endswith(suffix)]:
            if len(chosen) == 1:
                return chosen[0]
            raise InputError(f"{address} holds several weights ({', '.join(chosen)}): one is wanted")
    raise InputError(f"{address} holds no .safetensors and no .ckpt")


def _kept(address: str, folder: Path, alias: str | None) -> Path:
    """What an earlier call has fetched; which version an alias such as best means, W&B alone knows."""
    versions = [path for path in folder.glob("v*/") if VERSION.fullmatch(path.name) and alias in (None, path.name)]
    versions = versions or [path for path in folder.glob("v*/") if not VERSION.fullmatch(alias or "")]
    for version in sorted(versions, key=lambda path: path.stat().st_mtime, reverse=True):
        if names := [path.name for path in version.iterdir() if PLAIN.fullmatch(path.name)]:
            return version / _choose(address, names)
    raise InputError(f"{address} is not on this machine, and CONTEXTZOO_OFFLINE is set: unset it")


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(lines[0] if lines else type(error).__name__, 300)
