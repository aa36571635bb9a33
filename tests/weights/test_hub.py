"""Weights on the hub: put there, found again by name, verified; nothing else of a repository is read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub import COMMIT, Hub, serving
from PIL import Image

import contextzoo as cz
from lightning_app.util.errors import InputError

huggingface_hub = pytest.importorskip("huggingface_hub")

IMAGES = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
FILE = "model.safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setenv("CONTEXTZOO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with serving(monkeypatch) as running:
        yield running


def small(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return cz.create_model("fcn", "test_resnet", num_classes=["leaf", "soil"], channels=8).eval()


def kept(tmp_path: Path) -> list[str]:
    """Files below the folder of downloads, but for locks."""
    files = (path for path in tmp_path.glob("home/**/*") if path.is_file() and path.suffix != ".lock")
    return sorted(path.relative_to(tmp_path / "home").as_posix() for path in files)


def test_pushed_and_loaded_by_name(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small()
    assert model.push_to_hub("someone/leaves", licence="CC-BY-4.0") == f"{hub.url}/someone/leaves"
    assert hub.repositories["someone/leaves"].keys() == {FILE, "README.md"}
    capsys.readouterr()
    for address in ("hf://someone/leaves", "hf://someone/leaves@main", f"hf://someone/leaves@{COMMIT}/{FILE}"):
        again = cz.load(address)
        assert torch.equal(again(IMAGES), model(IMAGES))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"someone/leaves/{FILE}: ")
    assert lines[1:] == [f"someone/leaves/{FILE}: already here, verified"] * 2
    assert again.info.classes == ("leaf", "soil")
    assert again.info.licences == {"weights": "CC-BY-4.0"}
    assert kept(tmp_path) == [f"hub/someone--leaves/{COMMIT}/{FILE}"]
    assert not again.training


def test_the_card_passes_the_hubs_own_library(hub: Hub) -> None:
    photograph = Image.new("RGB", (40, 30), (90, 120, 60))
    small().push_to_hub("someone/leaves", licence="My own terms, 2026", picture=photograph)
    files = hub.repositories["someone/leaves"]
    assert files.keys() == {FILE, "README.md", "picture.jpg"}
    card = huggingface_hub.ModelCard(files["README.md"].decode())
    card.validate()  # asks the hub, here one that knows the rules which are written down
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.tags) == (
        "contextzoo",
        "image-segmentation",
        ["fcn", "test_resnet"],
    )
    assert (data.license, data.license_name) == ("other", "my-own-terms-2026")
    assert "![What it sees in a photograph](picture.jpg)" in card.text
    assert 'cz.load("hf://someone/leaves")' in card.text


def test_a_private_repository(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    small().push_to_hub("someone/secret", private=True)
    assert hub.private == {"someone/secret"}
    assert cz.load("hf://someone/secret").info.name == "secret"
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(InputError, match=r"Cannot look at hf://someone/secret \(.*hf auth login\)$"):
        cz.load("hf://someone/secret")


def test_other_bytes_than_the_hub_tells_are_not_kept(hub: Hub, tmp_path: Path) -> None:
    small().push_to_hub("someone/leaves")
    content = hub.repositories["someone/leaves"][FILE]
    hub.lies[FILE] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(InputError, match="wrong bytes, their sha256 is not the index's"):
        cz.load("hf://someone/leaves")
    assert kept(tmp_path) == []


def test_a_damaged_file_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    small().push_to_hub("someone/leaves")
    cz.load("hf://someone/leaves")
    path = tmp_path / "home" / kept(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert torch.equal(cz.load("hf://someone/leaves")(IMAGES), small()(IMAGES))


def test_a_new_commit_is_another_file(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    small().push_to_hub("someone/leaves")
    cz.load("hf://someone/leaves")
    hub.commit = "f" * 40
    small(seed=1).push_to_hub("someone/leaves")
    assert torch.equal(cz.load("hf://someone/leaves")(IMAGES), small(seed=1)(IMAGES))
    monkeypatch.setenv("CONTEXTZOO_OFFLINE", "1")
    asked = len(hub.asked)
    assert torch.equal(cz.load("hf://someone/leaves")(IMAGES), small(seed=1)(IMAGES))
    assert torch.equal(cz.load(f"hf://someone/leaves@{COMMIT}")(IMAGES), small()(IMAGES))
    with pytest.raises(InputError, match="hf://someone/other is not on this machine, and CONTEXTZOO_OFFLINE is set"):
        cz.load("hf://someone/other")
    assert len(hub.asked) == asked


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("hf://someone", "is no address: give hf://user/name"),
        ("hf://someone/../etc", "is no address"),
        ("hf://someone/leaves@../../x", "is no address"),
        ("hf://someone/leaves/sub/x.safetensors", "is no address"),
        ("hf://someone/nobody", r"Cannot look at hf://someone/nobody \(no such repository, or it is private"),
        ("hf://someone/leaves@v9", r"Cannot look at hf://someone/leaves@v9 \(no such revision\)"),
        ("hf://someone/leaves/README.md", f"README.md is not there, or no .safetensors; there: {FILE}"),
        ("hf://someone/pickles", "holds no .safetensors file; others, such as pickles, are not read"),
        ("hf://someone/many", "holds several weights: name one, such as hf://someone/many/a.safetensors"),
    ],
)
def test_what_is_no_weights_is_one_line(hub: Hub, address: str, line: str) -> None:
    small().push_to_hub("someone/leaves")
    hub.repositories["someone/pickles"] = {"pytorch_model.bin": b"x", "model.py": b"x"}
    hub.repositories["someone/many"] = {"a.safetensors": b"x", "b.safetensors": b"x"}
    with pytest.raises(InputError, match=line) as error:
        cz.load(address)
    assert "\n" not in str(error.value)
    assert not [each for each in hub.asked if "/resolve/" in each]


@pytest.mark.parametrize(
    "name", ["../../evil.safetensors", "/tmp/evil.safetensors", "a/b.safetensors", ".hidden.safetensors"]
)
def test_names_that_lead_elsewhere_are_not_looked_at(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.names = [name]
    hub.repositories["someone/evil"] = {}
    with pytest.raises(InputError, match=r"holds no \.safetensors"):
        cz.load("hf://someone/evil")
    small().push_to_hub("someone/leaves")
    assert cz.load("hf://someone/leaves").info.classes == ("leaf", "soil")
    assert kept(tmp_path) == [f"hub/someone--leaves/{COMMIT}/{FILE}"]


def test_a_commit_that_leads_elsewhere_is_refused(hub: Hub, tmp_path: Path) -> None:
    small().push_to_hub("someone/leaves")
    hub.commit = "../../../evil"
    with pytest.raises(InputError, match=r"the hub tells no commit, but \.\./"):
        cz.load("hf://someone/leaves")
    assert kept(tmp_path) == []


def test_one_repository_one_card(hub: Hub) -> None:
    hub.repositories["someone/taken"] = {"other.safetensors": b"x", "README.md": b"theirs"}
    with pytest.raises(InputError, match=r"hf://someone/taken holds other weights \(other\.safetensors\)"):
        small().push_to_hub("someone/taken")
    assert hub.repositories["someone/taken"]["README.md"] == b"theirs"
    for name in ("nobody", "a/b/c", "../x", "someone/leaves@main"):
        with pytest.raises(InputError, match="is no repository of the hub: give user/name"):
            small().push_to_hub(name)


def test_without_a_login_one_line_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(InputError, match=r"Cannot push to hf://someone/leaves .*: log in with hf auth login") as error:
        small().push_to_hub("someone/leaves")
    assert "\n" not in str(error.value)
    assert hub.repositories == {}


def test_other_classes_say_what_they_began_from(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    small().push_to_hub("someone/leaves")
    capsys.readouterr()
    model = cz.load("hf://someone/leaves", num_classes=["crop", "weed", "soil"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("leaves: Loaded ")
    assert line.endswith("New: head.classifier.{weight,bias} (2 -> 3 classes).")
    model.push_to_hub("someone/weeds")
    assert hub.cards[-1]["base_model"] == "someone/leaves"
    assert "begun from | hf://someone/leaves" in hub.repositories["someone/weeds"]["README.md"].decode()


def test_nothing_of_this_machine_is_told(hub: Hub, tmp_path: Path) -> None:
    small().push_to_hub("someone/leaves")
    everything = b"".join(hub.repositories["someone/leaves"].values())
    assert str(tmp_path).encode() not in everything
    assert str(Path.home()).encode() not in everything
