"""The segment command as typed: what it writes, for which inputs, and what it says of those it cannot use."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pictures import bmp
from PIL import Image
from tiny import CLASSES, PALETTE
from weights import ENTRY, openmmlab_file, write_tiny

from lightning_app.app.cli import main
from lightning_app.tasks.semantic import segmenter
from lightning_app.tasks.semantic.draw import class_shares, legend, overlay, percent
from lightning_app.tasks.semantic.inference import predict
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.tasks.semantic.protocol import EvaluationProtocol
from lightning_app.util.extras import install
from lightning_app.weights.load import load
from zoo.datasets import datasets

ROOT = Path(__file__).parents[2]


def offline() -> dict[str, str]:
    return {**os.environ, "CONTEXTZOO_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the weights tiny.safetensors."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "tiny.safetensors")
    return tmp_path


def photo(path: Path | str, width: int = 70, height: int = 50, seed: int = 0, **options: Any) -> NDArray[np.uint8]:
    """Save smooth noise; returns its pixels."""
    coarse = np.random.default_rng(seed).integers(
        256, size=(max(height // 10, 1), max(width // 10, 1), 3), dtype=np.uint8
    )
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return np.array(image)


def run(typed: str) -> int:
    return main(["segment", "--weights", "tiny.safetensors", *typed.split()])


def expected(pixels: NDArray[np.uint8], protocol: EvaluationProtocol | None = None) -> NDArray[np.int64]:
    model = load("tiny.safetensors")
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        return predict(model, images, pixels.shape[:2], protocol or EvaluationProtocol()).argmax(1)[0].numpy()


def test_three_files_of_a_photo(capsys: pytest.CaptureFixture[str]) -> None:
    ids = expected(photo("a.b.png"))
    assert run("a.b.png") == 0
    assert sorted(path.name for path in Path("segmented").iterdir()) == ["a.b.json", "a.b.png", "a.b_overlay.jpg"]
    mask = Image.open("segmented/a.b.png")
    assert mask.mode == "P"
    assert mask.getpalette()[:9] == [value for colour in PALETTE for value in colour]  # type: ignore[index]
    np.testing.assert_array_equal(np.array(mask), ids)
    facts = json.loads(Path("segmented/a.b.json").read_text())
    assert (facts["width"], facts["height"], facts["weights"]) == (70, 50, "tiny")
    assert facts["classes"] == {CLASSES[i]: pytest.approx((ids == i).mean()) for i in np.unique(ids)}
    assert list(facts["classes"].values()) == sorted(facts["classes"].values(), reverse=True)
    line = capsys.readouterr().out
    assert line.startswith(f"a.b.png: {percent(next(iter(facts['classes'].values())))} {next(iter(facts['classes']))}")
    assert line.endswith("-> segmented/a.b.png\n")


def test_windows_as_asked(folder: Path) -> None:
    pixels = photo("a.png", 100, 80)
    for typed, stride in (("--window 48 64 --overlap 0.25", (36, 48)), ("--window 48 --batch 3 --tta", (32, 32))):
        assert run(f"a.png {typed} --out out") == 0
        crop = (48, 64) if "64" in typed else (48, 48)
        how = EvaluationProtocol("slide", crop=crop, stride=stride)
        if "tta" in typed:
            how = EvaluationProtocol("slide", crop=crop, stride=stride, scales=segmenter.SCALES, flip=True)
        same = np.array(Image.open("out/a.png")) == expected(pixels, how)
        assert same.mean() > 0.99  # resizes of whole numbers round


def test_a_large_image_is_seen_in_windows_and_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = photo("a.png", 100, 80)
    monkeypatch.setattr(segmenter, "WHOLE", 5000)
    monkeypatch.setattr(segmenter, "WINDOW", (32, 32))
    monkeypatch.setattr(segmenter, "LOGITS", 4 * 3 * 42 * 42)  # tiles of 42 x 42 pixels
    assert run("a.png") == 0
    how = EvaluationProtocol("slide", crop=(32, 32))
    np.testing.assert_array_equal(np.array(Image.open("segmented/a.png")), expected(pixels, how))
    assert json.loads(Path("segmented/a.json").read_text())["protocol"]["crop"] == [32, 32]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory as Linux tells it")
def test_memory_grows_by_little_more_than_the_picture() -> None:
    """8 bytes a pixel: the picture, its classes, and Pillow's 4 for the one of the overlay."""
    photo("small.png", 300, 300)
    photo("large.png", 3000, 2000)
    code = """
import re
from pathlib import Path
from lightning_app.app.cli import main
from lightning_app.tasks.semantic import segmenter
segmenter.LOGITS = 2**22
def peak(name):
    assert main(["segment", name, "--weights", "tiny.safetensors", "--window", "250", "--overlap", "0"]) == 0
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak("small.png")
print((peak("large.png") - before) / 6e6)
"""
    environment = offline() | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 13


def test_a_photo_is_turned_as_its_camera_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    photo("a.jpg", 70, 50, exif=exif)
    assert run("a.jpg") == 0
    assert Image.open("segmented/a.png").size == (50, 70)
    upright = np.array(Image.open("a.jpg").transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(np.array(Image.open("segmented/a.png")), expected(upright))


def test_a_bad_image_is_reported_and_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    photo("in/a.png")
    Path("in/b.jpg").write_bytes(b"no picture")
    photo("in/deep/c.png")
    Path("in/notes.txt").write_text("no picture either")
    assert run("in --out out") == 1
    err = capsys.readouterr().err
    assert err.splitlines()[0] == "in: 1 file of other types left out (.txt 1)"
    assert err.splitlines()[1].startswith("in/b.jpg: Unreadable")
    assert err.splitlines()[2] == "2 of 3 segmented, 1 skipped"
    written = {path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()}
    assert written == {f"{stem}{end}" for stem in ("a", "deep/c") for end in (".png", "_overlay.jpg", ".json")}


def test_what_is_no_file_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    photo("in/a.png")
    photo("in/thin.png", 1, 3000)
    os.mkfifo("in/pipe.png")
    os.mkfifo("in/film.mp4")
    Path("in/folder.png").mkdir()
    Path("in/loop.png").symlink_to("loop.png")
    Path("in/lies.bmp").write_bytes(bmp(60_000, 60_000, 24, bytes(100)))
    assert run("in --out out") == 1
    err = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in err[:5]] == [
        f"in/{name}" for name in ("film.mp4", "folder.png", "lies.bmp", "loop.png", "pipe.png")
    ]
    assert err[5:] == ["2 of 7 segmented, 5 skipped"]
    assert Image.open("out/thin.png").size == (1, 3000)


def test_a_pattern_is_expanded(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("in/x/1.png", "in/y/1.png", "in/y/2.jpg"):
        photo(name)
    assert run("in/*/1.png --out out") == 0
    assert Path("out/x/1.png").exists()
    assert Path("out/y/1.json").exists()
    assert not Path("out/y/2.json").exists()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("photoo.png", 'photoo.png: no such file or folder. Did you mean "photo.png"?'),
        ("empty", "empty: no images or videos there"),
        ("nothing*.png", "nothing*.png: no such file"),
        ("photo.png --out .", "photo.png would be overwritten by its own result: give another --out"),
        ("photo.png other/photo.png", "would both be written to segmented/photo.png"),
        ("photo.png --window 0x5", "'0x5' is not a size such as 512 1024, or 512"),
        ("photo.png --overlap 1", "'1' is not a share from 0 to 0.9"),
        ("photo.png --batch -1", "--batch"),
        ("photo.png --device abacus", "'abacus' cannot be used here"),
        ("photo.png --windows 5", "--windows"),
        ("photo.png --weights nothing.ckpt", "nothing.ckpt: no such file"),
    ],
)
def test_bad_input_is_one_line(typed: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    photo("photo.png")
    photo("other/photo.png")
    Path("empty").mkdir()
    assert run(typed) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("segmented").exists()


def test_a_folder_that_cannot_be_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    photo("photo.png")
    Path("file").write_text("")
    assert run("photo.png --out file") == 2
    assert capsys.readouterr().err.startswith("file")


def out_of_memory_above(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    """Let the model fail as the allocator does where a window has more pixels."""
    forward = Segmentor.forward

    def limited(self: Any, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-2] * images.shape[-1] > pixels:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")
        return forward(self, images)

    monkeypatch.setattr(Segmentor, "forward", limited)


def test_out_of_memory_halves_the_window_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = photo("a.png", 80, 64)
    photo("b.png", 80, 64)
    wanted = expected(pixels, EvaluationProtocol("slide", crop=(32, 40)))
    out_of_memory_above(monkeypatch, 32 * 40)
    assert run("a.png b.png") == 0
    assert capsys.readouterr().err == "Out of memory: going on in windows of 32x40\n"
    np.testing.assert_array_equal(np.array(Image.open("segmented/a.png")), wanted)


def test_out_of_memory_twice_skips_the_image(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("a.png", 80, 64)
    out_of_memory_above(monkeypatch, 10)
    assert run("a.png --window 64") == 1
    assert "a.png: out of memory again. Give a smaller --window." in capsys.readouterr().err
    assert not Path("segmented").exists()


def test_an_error_of_another_kind_is_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    photo("a.png")
    monkeypatch.setattr(Segmentor, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        run("a.png")


def test_half_precision_differs_little() -> None:
    pixels = photo("a.png")
    assert run("a.png --precision bf16-mixed") == 0
    assert (np.array(Image.open("segmented/a.png")) == expected(pixels)).mean() > 0.9


def test_a_video_is_coloured(capsys: pytest.CaptureFixture[str]) -> None:
    av = pytest.importorskip("av")
    with av.open("a.mp4", "w") as video:
        stream = video.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for seed in range(3):
            frame = av.VideoFrame.from_ndarray(photo("frame.png", 64, 48, seed), format="rgb24")
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    assert run("a.mp4") == 0
    facts = json.loads(Path("segmented/a.json").read_text())
    assert (facts["frames"], facts["width"], facts["height"]) == (3, 64, 48)
    assert sum(facts["classes"].values()) == pytest.approx(1)
    with av.open("segmented/a_overlay.mp4") as coloured:
        assert [(frame.width, frame.height) for frame in coloured.decode(video=0)] == [(64, 48)] * 3
    Path("b.mp4").write_bytes(b"no video")
    assert run("b.mp4") == 1
    assert "b.mp4: Unreadable" in capsys.readouterr().err
    assert not Path("segmented/b_overlay.mp4").exists()


def test_a_video_without_pyav_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    Path("a.mp4").write_bytes(b"")
    assert run("a.mp4") == 2
    assert capsys.readouterr().err == f"Videos need PyAV: {install('video')}\n"


def test_from_an_openmmlab_file_to_pictures(folder: Path) -> None:
    """The whole way, in a process of its own, with no connection."""
    path = openmmlab_file(folder)
    photo("street.png", 150, 90)
    command = [sys.executable, "-m", "lightning_app", "segment", "street.png", "--weights", str(path), "--window", "96"]
    done = subprocess.run(command, capture_output=True, text=True, env={**offline(), "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("-> segmented/street.png\n")
    facts = json.loads(Path("segmented/street.json").read_text())
    assert facts["weights"] == ENTRY
    assert set(facts["classes"]) <= set(datasets()["cityscapes"].classes)
    mask = Image.open("segmented/street.png")
    assert mask.size == (150, 90)
    assert mask.getpalette()[:3] == [128, 64, 128]  # type: ignore[index]
    assert Image.open("segmented/street_overlay.jpg").size[0] >= 150


def test_the_overlay_shows_photo_classes_and_legend() -> None:
    image = np.full((60, 300, 3), 200, dtype=np.uint8)
    ids = np.zeros((60, 300), dtype=np.uint8)
    ids[:, 150:] = 1
    picture = np.array(overlay(image, ids, ["road", "car"], [(0, 0, 0), (200, 0, 0)]))
    assert picture.shape[0] > 60
    assert picture.shape[1] == 300
    assert picture[30, 50].tolist() == [90, 90, 90]  # 45 % of the photo
    assert picture[30, 149].tolist() == [0, 0, 0]  # an outline is opaque
    assert picture[30, 250].tolist() == [200, 90, 90]
    panel = picture[60:]
    for colour in ([0, 0, 0], [200, 0, 0], [255, 255, 255]):
        assert (panel == colour).all(-1).sum() > 50, colour


def test_a_legend_of_many_classes_names_the_largest() -> None:
    names = [f"class {i}" for i in range(60)]
    palette = [(i, 0, 255 - i) for i in range(60)]
    few = legend(names, palette, [0.5, 0.5] + [0.0] * 58, 640)
    many = legend(names, palette, [i / 1770 for i in range(60)], 640)
    assert few.width == many.width == 640
    assert few.height < many.height < 400
    assert legend(names, palette, [1.0] + [0.0] * 59, 20).width > 60  # wide enough to be read


def test_shares_and_how_they_read() -> None:
    assert class_shares(np.array([[0, 1], [1, 1]], dtype=np.uint8), 3) == [0.25, 0.75, 0]
    assert [percent(share) for share in (1, 0.414, 0.0095, 0.004, 0.0001)] == [
        "100 %",
        "41 %",
        "1 %",
        "0.4 %",
        "< 0.1 %",
    ]
