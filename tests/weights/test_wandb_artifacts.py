"""Weights by wandb://: a real artifact of W&B's, not logged anywhere, behind an API that answers from this machine."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import wandb
from weights import write_tiny

import contextzoo as cz
from lightning_app.util.errors import InputError

ADDRESS = "wandb://me/heads/model-abc:best"


class Entry:
    """A file of the artifact; W&B's own fetches it from its server, this one from where it was added."""

    def __init__(self, entry: Any, served: Path | None = None) -> None:
        self.path, self.digest, self.size, self.extra = entry.path, entry.digest, entry.size, entry.extra
        self.ref, self.served = entry.ref, served or entry.local_path

    def download(self, root: str, skip_cache: bool) -> str:
        assert skip_cache
        return str(shutil.copy(self.served, Path(root) / self.path))


class Logged:
    """What ``wandb.Api().artifact`` gives."""

    def __init__(self, artifact: Any, version: str = "v3") -> None:
        entries = {name: Entry(each) for name, each in artifact.manifest.entries.items()}
        self.manifest, self.version = SimpleNamespace(entries=entries), version

    def get_entry(self, name: str) -> Entry:
        entry: Entry = self.manifest.entries[name]
        return entry


class Api:
    artifacts: dict[str, Logged] = {}  # noqa: RUF012
    asked: list[str] = []  # noqa: RUF012

    def artifact(self, name: str) -> Logged:
        self.asked.append(name)
        if name not in self.artifacts:
            raise ValueError(f"artifact membership {name!r} not found\nmore")
        return self.artifacts[name]


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logged:
    """The artifact of ADDRESS, with the weights of ``write_tiny``."""
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "CONTEXTZOO_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    write_tiny(tmp_path / "tiny.safetensors")
    artifact = wandb.Artifact("model-abc", type="model")
    artifact.add_file(str(tmp_path / "tiny.safetensors"))
    artifact.add_file(__file__, name="code.py")
    monkeypatch.setattr(Api, "artifacts", {"me/heads/model-abc:best": Logged(artifact)})
    monkeypatch.setattr(Api, "asked", [])
    monkeypatch.setattr(wandb, "Api", Api)
    return Api.artifacts["me/heads/model-abc:best"]


def files(tmp_path: Path) -> list[str]:
    return sorted(path.relative_to(tmp_path / "home").as_posix() for path in tmp_path.glob("home/wandb/**/*.*"))


def test_fetched_once_and_verified(
    logged: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = torch.rand(1, 3, 24, 32)
    expected = cz.load(tmp_path / "tiny.safetensors")(images)
    assert torch.equal(cz.load(ADDRESS)(images), expected)
    assert capsys.readouterr().err.endswith("MB, verified\n")
    assert files(tmp_path) == ["wandb/me--heads--model-abc/v3/tiny.safetensors"]
    logged.manifest.entries["tiny.safetensors"].served = "nowhere"  # it is not fetched again
    assert torch.equal(cz.load(ADDRESS)(images), expected)
    monkeypatch.setenv("CONTEXTZOO_OFFLINE", "1")
    asked = len(Api.asked)
    assert torch.equal(cz.load(ADDRESS)(images), expected)
    assert len(Api.asked) == asked
    with pytest.raises(InputError, match="is not on this machine, and CONTEXTZOO_OFFLINE is set"):
        cz.load("wandb://me/heads/other:best")


def test_other_bytes_are_not_kept(logged: Logged, tmp_path: Path) -> None:
    entry = logged.manifest.entries["tiny.safetensors"]
    content = (tmp_path / "tiny.safetensors").read_bytes()
    entry.served = tmp_path / "other"
    entry.served.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"tiny\.safetensors has other bytes than W&B says"):
        cz.load(ADDRESS)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["../../evil.safetensors", "/tmp/evil.ckpt", "a/b.safetensors", ".evil.safetensors"])
def test_names_that_lead_elsewhere_are_not_looked_at(logged: Logged, tmp_path: Path, name: str) -> None:
    entries = logged.manifest.entries
    entries[name] = entries.pop("tiny.safetensors")
    with pytest.raises(InputError, match=r"holds no \.safetensors and no \.ckpt"):
        cz.load(ADDRESS)
    assert files(tmp_path) == []


def test_references_and_strange_versions_are_not_followed(logged: Logged, tmp_path: Path) -> None:
    logged.version = "../../v1"
    with pytest.raises(InputError, match=r"W&B tells no version, but \.\./"):
        cz.load(ADDRESS)
    logged.version = "v1"
    logged.manifest.entries["tiny.safetensors"].ref = "file:///etc/passwd"
    with pytest.raises(InputError, match="is a reference to file:///etc/passwd, which is not followed"):
        cz.load(ADDRESS)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("wandb://me/heads", "is no address: give wandb://entity/project/artifact:alias"),
        ("wandb://me/../model:best", "is no address"),
        ("wandb://me/heads/nothing", r"Cannot look at wandb://me/heads/nothing \(artifact membership .* not found\)"),
    ],
)
def test_what_is_no_artifact_is_one_line(logged: Logged, address: str, line: str) -> None:
    with pytest.raises(InputError, match=line) as error:
        cz.load(address)
    assert "\n" not in str(error.value)
