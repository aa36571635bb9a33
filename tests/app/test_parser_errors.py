"""Each pattern of parser_errors finds what the installed jsonargparse really says."""

import re
from pathlib import Path
from typing import Any

import pytest
from commands import PROBE, run

from lightning_app.app import command_line, parser_errors

PATTERNS = {name: each for name, each in vars(parser_errors).items() if isinstance(each, re.Pattern)}
CAMVID = "fit --data CamVid"
FIT = f"fit {PROBE}"
TYPED = {  # pattern -> what makes jsonargparse say it, and what the pattern takes from that
    "KEY": (f"{FIT} --model.lr fast", "model.lr"),
    "DENIED": (f"{FIT} --model.head os.path", "os.path"),
    "UNKNOWN": (f"{FIT} --model.lrr 3", "model.lrr"),
    "STRAY": (f"{FIT} extra", "extra"),
    "NO_KEY": (f"{FIT} -c wrong.yaml", "trainer.max_epoch"),
    "NO_ARGUMENT": (f"{CAMVID} --data.crop 3", "crop"),
    "LINKED": (f"{FIT} --model.num_classes 7", "model.num_classes"),
    "LINKED_VALUE": (f"{FIT} --model.palette []", "model.palette"),
    "NO_CLASS": (f"{FIT} --model.head CCHaed", "CCHaed"),
    "GIVEN": (f"{FIT} --trainer.max_epochs many", "many"),
    "GOT": (f"{FIT} --data.cells many", "many"),
    "LITERAL": (f"{FIT} --model.schedule polly", "'poly', 'onecycle', 'constant'"),
    "UNION": (f"{CAMVID} --data.crop_size 3", "tuple[int, int], <class 'NoneType'>"),
    "TYPE": (f"{FIT} --model.lr fast", "<class 'float'>"),
    "MISSING": ("fit --model.lr 3", "data"),
    "SAID_OPTION": (f"{FIT} --model.head CCNet --model.head.recurence 3", 'Unknown option "recurence".'),
    "SAID_VALUE": (f"{CAMVID} --data.crop_size 3", 'crop_size cannot be "3": expected tuple[int, int] or null'),
}


def test_every_pattern_is_tried() -> None:
    assert TYPED.keys() == PATTERNS.keys()


@pytest.mark.parametrize("name", TYPED)
def test_pattern_finds_what_is_said(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def explain(message: str, *known: Any) -> str:
        said.append(" ".join(message.split()))
        return parser_errors.explain(message, *known)

    monkeypatch.setattr(command_line, "explain", explain)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text("trainer: {max_epoch: 7}")
    command, taken = TYPED[name]
    assert run(command) == 2
    found = [match for text in said if (match := PATTERNS[name].search(text))]
    assert found, f"jsonargparse says otherwise now: {said}"
    assert any(match[match.re.groups].startswith(taken) for match in found)
    (line,) = capsys.readouterr().err.splitlines()
    assert line not in said  # a person reads another sentence
