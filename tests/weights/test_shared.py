"""A backbone that several weights have in common: stored once, named by its hash, put together and verified."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from weights import fit_camvid, write_tiny

import zoo
from lightning_app.app.cli import main
from lightning_app.util.errors import InputError
from lightning_app.weights.description import HEADER
from lightning_app.weights.load import load
from lightning_app.weights.transfer import describe
from zoo import ZooError, cache, index, writing
from zoo.entry import SharedFile

ID, OTHER = (f"fcn_test_resnet_camvid-24x32_{name}" for name in ("one", "two"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run whose backbone is frozen, published twice, in an index of its own."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(index.INDEX, folder / "index")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(index, "INDEX", folder / "index")
        checkpoint = fit_camvid(folder, "--model.freeze", "backbone")
        for id in (ID, OTHER):
            typed = f"zoo publish {checkpoint} --id {id} --to out --share-backbone --half"
            assert main(typed.split()) == 0
        yield checkpoint


@pytest.fixture(autouse=True)
def published(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of what was published, in the working folder; the one file that holds their backbone."""
    folder = run.parents[3]
    for name in ("index", "out"):
        shutil.copytree(folder / name, tmp_path / name)
    monkeypatch.setattr(index, "INDEX", tmp_path / "index")
    monkeypatch.setenv("CONTEXTZOO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (part,) = Path("out/shared").iterdir()
    return part


def test_it_is_stored_once_under_its_hash(run: Path, published: Path) -> None:
    assert published.stem == hashlib.sha256(published.read_bytes()).hexdigest()
    with safe_open(f"out/{ID}/{ID}.safetensors", framework="pt") as file:
        assert all(name.startswith("head.") for name in file.keys())  # noqa: SIM118
    with safe_open(published, framework="pt") as file:
        assert all(name.startswith("backbone.") for name in file.keys())  # noqa: SIM118
    card = Path(f"out/{ID}/README.md").read_text()
    assert f"the backbone in {published.stem[:12]}..., once for all that share it" in card
    images = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    whole = load(run)
    for weights in (f"out/{ID}/{ID}.safetensors", OTHER):
        together = load(weights)
        assert describe(together) == describe(whole)
        torch.testing.assert_close(together(images), whole(images), rtol=0.02, atol=0.02)  # half precision


def test_a_download_brings_both_and_verify_looks_at_both(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "show", ID]) == 0
    assert f"/out/shared/{published.name}" in "".join(capsys.readouterr().out.split())
    assert zoo.get(ID).shared[0].startswith("file://")
    assert zoo.get(ID).shared[0].endswith(f"/out/shared/{published.name}")
    assert cache.find(zoo.get(ID)) is None
    assert main(["zoo", "download", ID]) == 0
    fetched = Path("home", published.name)
    assert fetched.read_bytes() == published.read_bytes()
    load(ID)
    assert main(["zoo", "verify", ID]) == 0
    fetched.write_bytes(fetched.read_bytes()[:-1])
    capsys.readouterr()
    assert main(["zoo", "verify", ID]) == 1
    assert capsys.readouterr().out == f"0 ok, 1 CORRUPT {ID}\n"
    fetched.unlink()
    assert main(["zoo", "where", ID]) == 1


def test_what_is_missing_or_damaged_is_one_line(published: Path) -> None:
    weights = f"out/{ID}/{ID}.safetensors"
    content = published.read_bytes()
    published.write_bytes(content[:-1] + b"!")
    with pytest.raises(InputError, match="is damaged: its name is not its sha256"):
        load(weights)
    published.unlink()
    with pytest.raises(InputError, match=rf"holds no backbone, .*contextzoo zoo download {ID} brings both"):
        load(weights)


def test_a_header_names_no_file_elsewhere(tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny.safetensors", shared={"backbone": "../../etc/passwd"})
    with pytest.raises(InputError, match="which is no sha256"):
        load(tmp_path / "tiny.safetensors")


def test_a_part_holds_nothing_of_another(published: Path) -> None:
    """A file of that hash whose tensors would replace the head's."""
    save_file({"head.classifier.bias": torch.zeros(11)}, published)
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    published.rename(f"{digest}.safetensors")
    with safe_open(f"out/{ID}/{ID}.safetensors", framework="pt") as file:
        told = json.loads(file.metadata()[HEADER])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, "own.safetensors", {HEADER: json.dumps(told | {"shared": {"backbone": digest}})})
    with pytest.raises(InputError, match=r"holds head\.classifier\.bias, which is not of the backbone"):
        load("own.safetensors")


def test_an_id_that_has_left_answers_with_the_new_one(published: Path) -> None:
    path = index.file_of("semantic", "fcn")
    path.write_text(path.read_text().replace("[replaced]\n", f'[replaced]\nfcn_old_camvid-1x1_1 = "{ID}"\n'))
    index.read.cache_clear()
    with pytest.raises(ZooError, match=f'"fcn_old_camvid-1x1_1" has left the zoo: "{ID}" does better'):
        zoo.get("fcn_old_camvid-1x1_1")
    path.write_text(path.read_text().replace(f'= "{ID}"', '= "fcn_nowhere"'))
    index.read.cache_clear()
    with pytest.raises(ZooError, match='is replaced by "fcn_nowhere", which is in no file'):
        index.check()


def test_an_entry_leaves_the_index(published: Path) -> None:
    path = index.file_of("semantic", "fcn")
    others = [entry.id for entry in zoo.list_entries(head="fcn") if entry.id != ID]
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert writing.replace(ID, OTHER) == path
    assert [entry.id for entry in zoo.list_entries(head="fcn")] == others
    assert [line for line in path.read_text().splitlines() if line.startswith("#")] == comments
    with pytest.raises(ZooError, match=f'"{ID}" has left the zoo: "{OTHER}" does better'):
        zoo.get(ID)
    assert main(["zoo", "show", ID]) == 2
    third = "fcn_resnet10t_camvid-180x240_990"
    writing.replace(OTHER, third)
    assert index.replaced()[ID] == index.replaced()[OTHER] == third
    index.check()
    with pytest.raises(ZooError, match="they are of other tasks or datasets"):
        writing.replace(third, "fcn_patchify_context-probe-64x64_960")


def test_an_entry_without_lines_of_its_own_stays(published: Path) -> None:
    path = index.file_of("semantic", "fcn")
    path.write_text(text := path.read_text().replace(f"[entry.{ID}]", f"['entry'.{ID}]"))
    index.read.cache_clear()
    with pytest.raises(ZooError, match=rf"fcn.toml: \[entry.{ID}\] has no lines of its own there; take it out by hand"):
        writing.replace(ID, OTHER)
    assert path.read_text() == text


def test_an_address_is_named_by_its_hash() -> None:
    part = SharedFile(f"checkpoints/shared/{'a' * 64}.safetensors")
    assert (part.sha256, part.filename) == ("a" * 64, f"{'a' * 64}.safetensors")
