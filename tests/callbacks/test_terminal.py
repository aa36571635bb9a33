"""What a person sees of a training in a terminal."""

import os
import sys
from pathlib import Path

import pytest
from commands import PROBE, TESTS
from screen import screen, shown


def test_a_redrawn_line_is_seen_once() -> None:
    assert screen("a\r\nbar 1\r\x1b[2Kbar 2\r\n\x1b[1A\x1b[2Kabcdef\r\n", 5) == ["a", "abcde", "f", ""]


@pytest.mark.parametrize("columns", [80, pytest.param(200, marks=pytest.mark.slow)])
def test_the_class_table_stays_whole_at_the_end_of_fit(columns: int, tmp_path: Path) -> None:
    environment = os.environ | {
        "TERM": "xterm",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
    }
    for name in ("CONTEXTZOO_RUN", "LOCAL_RANK", "COLUMNS"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "lightning_app", "fit", *PROBE.split(), "--trainer.max_epochs", "3", "--run", "a"]
    status, lines = shown(command, columns, cwd=tmp_path, env=environment)
    text = "\n".join(lines)
    assert status == 0, text
    assert sum(line.startswith("Epoch 3/3") for line in lines) == 1, text
    table = lines[next(number for number, line in enumerate(lines) if line.startswith("Best validation: epoch")) :]
    for name in ("background", "rows", "columns"):
        assert sum(line.split()[:1] == [name] for line in table) == 1, text
    assert any("each counted once" in line for line in table), text
