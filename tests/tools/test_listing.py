"""``contextzoo heads`` and ``contextzoo blocks``: what is read without torch is what the registries count."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import TESTS, run

from lightning_app.registry import BLOCKS
from lightning_app.tools import listing

SAY = "import sys; from lightning_app.app.cli import main; main(['blocks']); print('torch' in sys.modules)"


@pytest.mark.parametrize("kind", ["heads", "blocks"])
def test_what_is_read_is_what_is_counted(kind: str) -> None:
    """Where this fails, run scripts/count_parameters.py."""
    assert listing.read(kind) == listing.counted(kind)


def test_a_listing_needs_no_torch() -> None:
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    told = subprocess.run([sys.executable, "-c", SAY], env=environment, capture_output=True, text=True, check=True)
    assert all(f" {slug} " in told.stdout for slug in BLOCKS)
    assert told.stdout.endswith("\nFalse\n")  # nothing heavy was imported


def test_what_was_not_counted_before_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = tmp_path / "parameters.json"
    counts.write_text('{"blocks": {}}')
    monkeypatch.setattr(listing, "COUNTS", counts)
    assert listing.read("blocks") is None
    assert run("blocks") == 0
    assert re.search(r"ccnet +CrissCrossAttention +arXiv:1811.11721 +2019 +0.33 M", capsys.readouterr().out)
