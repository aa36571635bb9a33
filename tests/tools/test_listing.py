"""``contextzoo heads`` and ``contextzoo blocks``, which remember what took seconds to count."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import TESTS, run

from lightning_app.registry import BLOCKS
from lightning_app.tools import listing

SAY = "import sys; from lightning_app.app.cli import main; main(['blocks']); print('torch' in sys.modules)"


def test_a_listing_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run("blocks") == 0
    first = capsys.readouterr().out
    assert all(f" {slug} " in first for slug in BLOCKS)
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    again = subprocess.run([sys.executable, "-c", SAY], env=environment, capture_output=True, text=True, check=True)
    assert again.stdout == f"{first}False\n"  # nothing heavy was imported

    (memory,) = tmp_path.rglob("blocks-*.json")
    for damaged in ("[", "[[1]]", '{"a": 1}'):
        memory.write_text(damaged)
        assert run("blocks") == 0
        assert capsys.readouterr().out == first


def test_a_changed_file_is_counted_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PACKAGE", tmp_path)
    file = tmp_path / "block.py"
    file.write_text("a = 1")
    before = listing._fingerprint()
    assert listing._fingerprint() == before
    file.write_text("a = 12")
    assert listing._fingerprint() != before
