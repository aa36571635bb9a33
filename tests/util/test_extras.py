"""What is said of optional parts: a command that works however the program was installed."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from lightning_app.util import extras

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The metadata of an installed program, before all others."""
    folder = tmp_path / "contextzoo-9.dist-info"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    return folder / "METADATA"


@pytest.mark.parametrize("quote", ['"', "'"])
def test_the_packages_of_an_extra_are_named(installed: Path, quote: str) -> None:
    lines = ["torch>=2", f"one>=1.5; extra == {quote}plot{quote}", f"two; extra == {quote}plot{quote}"]
    lines += [f"three; extra == {quote}plot3d{quote}"]
    text = "\n".join(
        ["Metadata-Version: 2.1", "Name: contextzoo", "Version: 9", *(f"Requires-Dist: {x}" for x in lines)]
    )
    installed.write_text(text)
    assert extras.install("plot") == "pip install 'one>=1.5' 'two' (extra plot)"


def test_sources_that_are_not_installed_say_where_the_extra_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert extras.install("plot") == "pip install '.[plot]' in a clone of contextzoo"


def test_every_extra_that_the_code_names_is_there() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    files = [*(ROOT / "lightning_app").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    named = [
        each
        for file in files
        for each in re.findall(r"\binstall\(['\"](\w+)['\"]\)|'\.\[([\w,]+)\]'", file.read_text())
    ]
    words = {word for pair in named for text in pair if text for word in text.split(",")}
    assert {"plot", "video", "heic", "hub", "lite"} <= words <= known.keys()
    assert not [file for file in files if "contextzoo[" in file.read_text()]
