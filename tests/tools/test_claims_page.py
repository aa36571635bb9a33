"""docs/claims.md: made of the files of sweeps, by pairs of variants; images that are disturbed alike for every head."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tools.test_sweep_statistics import pretend

from lightning_app.tools.sweep_plan import read_variants

ROOT = Path(__file__).parents[2]
CLAIMS = ROOT / "docs" / "results" / "claims" / "claims.yaml"


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / f"{name}.py"))


def test_every_claim_names_variants_that_there_are() -> None:
    content = yaml.safe_load(CLAIMS.read_text())
    variants = read_variants(str(ROOT / "configs" / "recipes" / "claims" / "variants.yaml"))
    assert set(content["claims"]) == set("abcdefghi")
    for claim in content["claims"].values():
        assert {name for pair in claim["pairs"] for name in pair} <= variants.keys()
    for file, names in (pair for files in content["columns"].values() for pair in files.items()):
        heads = {each["head"] for each in json.loads((CLAIMS.parent / file).read_text())["trainings"]}
        assert set(names.values() if names else ()) <= heads


def test_the_page_is_of_the_files_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert script("claims")["page"]() == Path("docs/claims.md").read_text()


def claims_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: Any, pairs: Any) -> None:
    """A project with one claim, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("docs/results/claims").mkdir(parents=True)
    claim = {"claim": "B beats a.", "pairs": pairs, "said": "So it is."}
    Path("docs/results/claims/claims.yaml").write_text(
        yaml.safe_dump({"columns": columns, "claims": {"x": claim}}, sort_keys=False)
    )


def test_a_sweep_is_taken_in_and_its_pairs_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims_of(tmp_path, monkeypatch, {}, [["b", "a"], ["c", "a"], ["a", "nowhere"]])
    pretend(Path("probe"), {"a": 0.9, "b": 0.93, "c": 0.9, "d": 0.9, "e": 0.9}, 3)
    assert script("claims")["main"](["probe"]) == 0
    page = Path("docs/claims.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith("| b against a |")]
    assert row.endswith("**holds** |")
    (row,) = [line for line in page.splitlines() if line.startswith("| c against a |")]
    assert row.endswith("not seen |")
    assert "| a against nowhere |  |" in page
    assert "15 trainings: the smallest difference that it can see is" in page
    assert page.endswith("So it is.\n")
    assert script("claims")["main"](["nowhere"]) == 2


def test_sweeps_that_saw_the_same_images_are_one_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"both": {"variants.json": None, "heads.json": {"a": "fcn"}}}
    claims_of(tmp_path, monkeypatch, columns, [["b", "a"], ["c", "a"]])
    pretend(Path("variants"), {"b": 0.93, "c": 0.9, "e": 0.9}, 3)
    pretend(Path("heads"), {"fcn": 0.91, "e": 0.9}, 4)  # this e is another one than the variant
    assert script("claims")["main"](["variants", "heads"]) == 0
    page = Path("docs/claims.md").read_text()
    assert "--seeds 3` and `contextzoo sweep recipes/camvid_frozen --seeds 4`, 17 trainings" in page
    assert "12 degrees of freedom" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| b against a |")]
    assert row.endswith("**holds** |")


@pytest.mark.parametrize("kind", ["noise", "jpeg", "blur"])
def test_images_are_disturbed_alike_and_more_and_more(kind: str) -> None:
    strengths, disturb = script("robustness")["KINDS"][kind]
    smooth = torch.linspace(0, 255, 64).expand(3, 48, 64)
    image = (0.5 * smooth + 60 * torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0))).to(torch.uint8)
    errors = []
    for strength in strengths:
        disturbed = disturb(image, strength)
        assert (disturbed.shape, disturbed.dtype) == (image.shape, image.dtype)
        assert torch.equal(disturbed, disturb(image, strength))
        errors.append(float((disturbed.float() - image.float()).square().mean()))
    assert errors == sorted(errors)
    assert errors[0] > 0
