"""Goldens find their tests: those that are shipped, and those of a folder that is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from golden_files import SHIPPED, area_of, golden_files

AREAS = ("detection", "openmmlab", "pose", "successors", "whole_more")


def test_a_golden_says_of_which_area_it_is() -> None:
    files = [path for area in AREAS for path in (SHIPPED / area).glob("*.npz")]
    assert len(files) > 80
    assert all(area_of(path) == path.parent.name for path in files)


@pytest.mark.parametrize("nested", [False, True])
def test_each_file_of_a_named_folder_is_of_one_area(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool
) -> None:
    monkeypatch.setenv("CONTEXTZOO_GOLDENS", str(tmp_path))
    for area in AREAS:
        folder = tmp_path / area if nested else tmp_path
        folder.mkdir(exist_ok=True)
        for path in sorted((SHIPPED / area).glob("*.npz"))[:3]:
            shutil.copy(path, folder)
    found = {area: golden_files(area) for area in AREAS}
    assert {area: len(files) for area, files in found.items()} == dict.fromkeys(AREAS, 3)
    assert len(golden_files("detection", "attention__")) == 3


def test_a_file_of_no_area_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "news.npz", x=np.zeros(1))
    monkeypatch.setenv("CONTEXTZOO_GOLDENS", str(tmp_path))
    with pytest.raises(ValueError, match=r"news\.npz: a golden of no area that is known here"):
        golden_files("successors")
