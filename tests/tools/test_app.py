"""The page of contextzoo app: what it shows in a real browser, and what it says of what it cannot show."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from tiny import CLASSES, PALETTE
from weights import describe_tiny, write_tiny

from lightning_app.app.cli import main
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.data.bad_file import BadFile
from lightning_app.data.pose.facts import Keypoints
from lightning_app.heads.fcn import FCN
from lightning_app.tasks.instance.info import InstanceInfo
from lightning_app.tasks.instance.network import InstanceSegmentor
from lightning_app.tasks.pose.codec import Codec
from lightning_app.tasks.pose.info import PoseInfo
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.tools import app_look
from lightning_app.tools.app_look import difference, drawn_larger, glowing, look, photograph
from lightning_app.weights.load import load

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a photograph and weights of two networks, one of which attends."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(256, size=(12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC).save("photo.png")
    write_tiny(tmp_path / "plain.safetensors")
    head = {"class_path": "lightning_app.heads.ccnet.CCNet", "init_args": {"channels": 8}}
    write_tiny(tmp_path / "attends.safetensors", model=describe_tiny()["model"] | {"head": head, "auxiliary": None})
    return tmp_path


def test_what_is_seen_is_what_segment_sees(folder: Path) -> None:
    network, pixels = load("plain.safetensors"), photograph(Path("photo.png"))
    seen, expected = look(network, pixels), network.predict("photo.png")
    assert seen.names is not None
    np.testing.assert_array_equal(seen.names[0], expected.mask)
    assert seen.picture.size == (160, 120)
    for name in expected.shares:
        assert f"</span> {name} <b>" in seen.words
    assert f"rgb{PALETTE[0]}" in seen.words or CLASSES[0] not in expected.shares
    assert seen.uncertainty is not None
    assert 0 < float(re.search(r"Mean uncertainty ([\d.]+)", seen.words)[1]) <= 1  # type: ignore[index]


def test_where_two_differ(folder: Path) -> None:
    pixels = photograph(Path("photo.png"))
    one, other = (look(load(f"{name}.safetensors"), pixels) for name in ("plain", "attends"))
    same = difference(pixels, one, one)
    assert same is not None
    assert same[1] == "They name another class on < 0.1 % of the pixels."
    found = difference(pixels, one, other)
    assert found is not None
    assert one.names is not None
    assert other.names is not None
    differ = one.names[0] != other.names[0]
    np.testing.assert_array_equal(np.array(found[0]), np.array(glowing(pixels, differ)))
    assert difference(pixels, one, app_look.Looked(one.picture, "")) is None


def test_small_photographs_are_drawn_larger(folder: Path) -> None:
    pixels = photograph(Path("photo.png"))
    detector = InstanceSegmentor(TimmBackbone("resnet10t"), 2, channels=8, hidden=8, size=None, max_detections=5)
    detector.info = InstanceInfo(name="shapes", classes=("square", "disc"))
    backbone, codec = TimmBackbone("resnet10t"), Codec("udp", (64, 64))
    estimator = PoseEstimator(backbone, FCN(backbone.channels, 3, channels=8), codec)
    points = Keypoints(("head", "waist", "tail"), sigmas=(0.05,) * 3)
    estimator.info = PoseInfo(name="bees", keypoints=points, codec=codec, flip_test=False)
    for network in (load("plain.safetensors"), detector.eval(), estimator.eval()):
        assert look(network, pixels).picture.width == 160 * drawn_larger(network, pixels)
    expected = detector.predict(pixels).above(0.5)
    assert f"{len(expected) or 'nothing'}" in look(detector, pixels).words
    assert drawn_larger(detector, pixels) == 4


def test_uploads_have_limits_and_errors_no_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_look, "SIDE", 80)
    assert photograph(folder / "photo.png").shape == (60, 80, 3)
    monkeypatch.setattr(app_look, "MOST", 1000)
    with pytest.raises(BadFile, match=r"^photo.png: Too many pixels \(160x120, at most 1000\)"):
        photograph(folder / "photo.png")
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    with pytest.raises(BadFile) as error:
        photograph(folder / "bad.png")
    assert str(folder) not in str(error.value)


def test_names_tell_no_more_of_a_folder_than_they_need() -> None:
    pytest.importorskip("gradio")
    from lightning_app.tools.app_page import Networks

    typed = ["/home/me/runs/a/checkpoints/best.ckpt", "/home/me/runs/b/checkpoints/best.ckpt", "/home/me/x.ckpt", "id"]
    assert list(Networks(typed, "cpu")) == ["a/checkpoints/best.ckpt", "b/checkpoints/best.ckpt", "x.ckpt", "id"]
    assert list(Networks(["x.ckpt", "./x.ckpt", "x.ckpt"], "cpu")) == ["x.ckpt"]


@pytest.mark.parametrize("typed", ["--port 70000", "--port x", "--weights none.safetensors", "--shaer"])
def test_what_cannot_be_served_is_one_line(folder: Path, typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio")
    assert main(["app", *typed.split()]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    """Where the page is served, by the command as typed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["app", "--weights", str(folder / "attends.safetensors"), "plain.safetensors", "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GRADIO_TEMP_DIR": str(folder / "uploads")}
    with subprocess.Popen([sys.executable, "-m", "lightning_app", *command], env=environment) as server:
        try:
            for _ in range(1800):
                try:
                    urlopen(f"http://127.0.0.1:{port}").close()
                    break
                except OSError:
                    assert server.poll() is None
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.mark.slow
@pytest.mark.skipif(
    not CHROMIUM or not find_spec("gradio") or not find_spec("playwright"), reason="needs chromium, gradio, playwright"
)
def test_drop_click_and_read_in_a_browser(address: str, folder: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    def picture(page: Any, name: str) -> Any:
        return page.locator(f"#{name} img")

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (1280, 390):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.set_default_timeout(240_000)
            expect.set_options(timeout=240_000)
            elsewhere: list[str] = []
            page.on("request", lambda request, to=elsewhere: to.append(request.url))
            page.goto(address)
            page.locator("#photograph input[type=file]").set_input_files("photo.png")
            expect(picture(page, "seen")).to_be_visible()
            expect(page.locator("#words .legend li").first).to_be_visible()
            expect(picture(page, "uncertainty")).to_be_visible()
            picture(page, "seen").click(position={"x": 60, "y": 60})
            expect(picture(page, "explained")).to_be_visible()
            expect(page.locator("#because")).to_contain_text("through 2 passes: half within")
            page.screenshot(path=f"{width}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert str(folder) not in page.locator("body").inner_text()  # of weights that were named by their path
            if width == 1280:
                page.locator("#second input").click()
                page.get_by_role("option", name="plain.safetensors").click()
                expect(page.locator("#told")).to_contain_text("They name another class on")
                expect(picture(page, "differing")).to_be_visible()
                page.screenshot(path="two.png", full_page=True)
                (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
                page.locator("#photograph").get_by_role("button", name="Remove Image").click()
                page.locator("#photograph input[type=file]").set_input_files("bad.png")
                expect(page.locator("body")).to_contain_text("bad.png: Unreadable")
                assert str(folder) not in page.locator("body").inner_text()
            assert not [url for url in elsewhere if url.startswith("http") and not url.startswith(address)]
            page.close()
        browser.close()
