"""The infer command as typed, for weights of any task."""

from pathlib import Path

import pytest
from PIL import Image
from weights import write_tiny

from lightning_app.app.cli import main


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with weights and a photograph of two."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "tiny.safetensors")
    Image.effect_noise((70, 50), 80).convert("RGB").save("photo.png")


def test_class_maps_as_segment_writes_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["infer", "photo.png", "--weights", "tiny.safetensors"]) == 0
    assert capsys.readouterr().out.endswith("-> inferred/photo.png\n")
    assert main(["segment", "photo.png", "--weights", "tiny.safetensors"]) == 0
    names = ["photo.json", "photo.png", "photo_overlay.jpg"]
    assert sorted(path.name for path in Path("inferred").iterdir()) == names
    for name in names:
        assert Path("inferred", name).read_bytes() == Path("segmented", name).read_bytes()


def test_help_names_every_task_and_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["infer", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "class numbers (NAME.png)" in said
    assert "--window H W|N|none" in said
