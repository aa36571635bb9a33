"""The Hugging Face hub: weights by ``hf://user/name``, and where they are put.

Nothing that a repository holds is run: one file of tensors is fetched, from the commit that was looked at, and has to
have the hash that the hub told.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lightning_app.util.errors import InputError
from lightning_app.util.extras import install
from zoo import ZooError, cache, download
from zoo.errors import shown

SCHEME: Final = "hf://"
ADDRESS: Final = re.compile(
    r"hf://(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(?:@(?P<revision>(?:refs/(?:pr|convert)/)?[\w.-]+))?"
    r"(?:/(?P<file>[^/]+))?/?"
)
PLAIN: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._+-]{0,200}\.safetensors")  # nothing that leads out of a folder
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
SHA256: Final = re.compile(r"[0-9a-f]{64}")
FIRST: Final = "model.safetensors"  # of several, the one that is taken where none is named


@dataclass(frozen=True)
class _HubFile:
    """One file of a repository, to be fetched and kept under its name: a ``Stored`` of the zoo."""

    id: str
    filename: str
    sources: tuple[str, ...]
    size: int
    sha256: str


def fetch(address: str) -> Path:
    """The file of weights at ``hf://user/name[@revision][/file.safetensors]``, fetched once and verified.

    Raises:
        InputError: no such address, repository, revision or file, no huggingface_hub, or other bytes than the hub says.
    """
    found = ADDRESS.fullmatch(address)
    if found is None or ".." in address:
        raise InputError(
            f"{shown(address)} is no address: give hf://user/name, hf://user/name@revision, or a file in it"
        )
    repository, revision, file = found["repository"], found["revision"], found["file"]
    folder = cache.home() / "hub" / repository.replace("/", "--")
    if cache.offline():
        return _kept(address, folder, revision, file)
    try:
        info = _api().model_info(repository, revision=revision, files_metadata=True)
    except Exception as error:  # its HTTP library's errors come through as well
        raise InputError(f"Cannot look at {address} ({_reason(error)})") from None
    if not COMMIT.fullmatch(str(info.sha)):
        raise InputError(f"{address}: the hub tells no commit, but {shown(str(info.sha))}")
    files = {each.rfilename: each for each in info.siblings or ()}
    chosen = files[_choose(address, files, file)]
    sha256 = str(getattr(chosen.lfs, "sha256", "")) if chosen.lfs else ""
    if not SHA256.fullmatch(sha256) or not isinstance(chosen.size, int):
        raise InputError(f"{address}: the hub tells no hash of {chosen.rfilename}, so it cannot be verified")
    source = f"{SCHEME}{repository}@{info.sha}/{chosen.rfilename}"
    wanted = _HubFile(f"{repository}/{chosen.rfilename}", chosen.rfilename, (source,), chosen.size, sha256)
    try:
        return download.fetch_file(wanted, folder / info.sha, say=lambda line: print(line, file=sys.stderr))
    except ZooError as error:
        raise InputError(str(error)) from None


def push(folder: Path, repository: str, message: str, *, private: bool = False) -> str:
    """Put the files of a folder into a repository in one commit, which is made where it is not there; its address.

    Raises:
        InputError: no huggingface_hub, a name that it cannot have, other weights in it, or the hub does not take them.
    """
    check_repository(repository)
    to = f"{SCHEME}{repository}"
    api, ours = _api(), {path.name for path in folder.glob("*.safetensors")}
    try:
        api.create_repo(repository, exist_ok=True, private=private)
        there = {name for name in api.list_repo_files(repository) if name.endswith(".safetensors")}
        if others := there - ours:
            raise InputError(f"{to} holds other weights ({shown(min(others))}): one repository, one card")
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    except InputError:
        raise
    except Exception as error:  # its HTTP library's errors come through as well
        raise InputError(
            f"Cannot push to {to} ({_reason(error)}): log in with hf auth login, or look at the name"
        ) from None
    return f"{api.endpoint}/{repository}"


def check_repository(name: str) -> None:
    """Raise an InputError unless ``name`` can be a repository's."""
    found = ADDRESS.fullmatch(f"{SCHEME}{name}")
    if found is None or found["revision"] or found["file"] or ".." in name or name.endswith("/"):
        raise InputError(f"{shown(name)} is no repository of the hub: give user/name")


def _api() -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise InputError(f"{SCHEME} needs huggingface_hub: {install('hub')}") from None
    return HfApi(library_name="contextzoo")


def _choose(address: str, files: Mapping[str, Any], file: str | None) -> str:
    """Which of a repository's files the address means."""
    plain = sorted(name for name in files if PLAIN.fullmatch(name))
    if file is not None:
        if file in plain:
            return file
        raise InputError(f"{shown(address)} is not there, or no .safetensors; there: {', '.join(plain) or 'none'}")
    if not plain:
        raise InputError(f"{address} holds no .safetensors file; others, such as pickles, are not read")
    if len(plain) > 1 and FIRST not in plain:
        raise InputError(f"{address} holds several weights: name one, such as {address.rstrip('/')}/{plain[0]}")
    return FIRST if FIRST in plain else plain[0]


def _kept(address: str, folder: Path, revision: str | None, file: str | None) -> Path:
    """What an earlier call has fetched; its checksum is looked at where it is read."""
    commits = [path for path in folder.glob("*/") if COMMIT.fullmatch(path.name)]
    if revision:
        commits = [path for path in commits if path.name == revision]
    for commit in sorted(commits, key=lambda path: path.stat().st_mtime, reverse=True):
        if files := {path.name: path for path in commit.glob("*.safetensors")}:
            return files[_choose(address, files, file)]
    raise InputError(f"{address} is not on this machine, and CONTEXTZOO_OFFLINE is set: unset it")


def _reason(error: Exception) -> str:
    """What went wrong, in one line."""
    kinds = {
        "RepositoryNotFoundError": "no such repository, or it is private: log in with hf auth login",
        "RevisionNotFoundError": "no such revision",
        "GatedRepoError": "its owner asks for consent: give it on the repository's page",
    }
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return kinds.get(type(error).__name__, shown(f"{type(error).__name__}: {lines[0] if lines else ''}", 300))
