"""The last part of ``contextzoo demo``; its trainings are those of any recipe."""

import re
from pathlib import Path

import pytest
from PIL import Image

from lightning_app.tools import demo


def test_the_photograph_shows_about_as_many_nuclei_as_people_drew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nuclei.jpg"
    demo.photograph(path)
    found, drawn = map(int, re.findall(r" (\d+)", capsys.readouterr().out)[:2])
    assert drawn == demo.DRAWN
    assert abs(found - drawn) <= 6
    with Image.open(path) as picture:
        assert picture.width == 512


def test_without_the_weights_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "DETECTOR", str(tmp_path / "gone.safetensors"))
    demo.photograph(tmp_path / "nuclei.jpg")
    said = capsys.readouterr().out
    assert said.startswith("No photograph: ")
    assert "gone.safetensors" in said
    assert not list(tmp_path.iterdir())
