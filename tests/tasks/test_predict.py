"""Python's predict against the command line, pixel by pixel, and what the network refuses to look at."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from weights import write_tiny

from lightning_app.app.cli import main
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.heads.fcn import FCN
from lightning_app.tasks.semantic import segmenter
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError
from lightning_app.weights.load import load

BOX = {"mode": "whole", "scales": [1.0], "fit": [64, 48], "antialias": True}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder with the weights box.safetensors, whose protocol resizes."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "box.safetensors", protocol=BOX)


def photo(name: str, width: int = 150, height: int = 100, mode: str = "RGB", orientation: int = 1) -> None:
    coarse = np.random.default_rng(0).integers(256, size=(height // 10, width // 10, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(name, exif=exif)


def by_command_line(name: str, *options: str) -> NDArray[np.uint8]:
    assert main(["segment", name, "--weights", "box.safetensors", *options]) == 0
    return np.array(Image.open(f"segmented/{Path(name).stem}.png"))


@pytest.mark.parametrize(
    ("name", "mode", "orientation"), [("a.jpg", "RGB", 6), ("a.png", "P", 1), ("a.png", "L", 1), ("a.png", "RGBA", 1)]
)
def test_a_file_an_image_an_array_and_a_tensor_give_what_segment_gives(name: str, mode: str, orientation: int) -> None:
    photo(name, mode=mode, orientation=orientation)
    expected = by_command_line(name)
    model = load("box.safetensors")
    pixels = np.array(ImageOps.exif_transpose(Image.open(name)).convert("RGB"))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    pictures: list[Any] = [name, Path(name), Image.open(name), pixels, tensor, tensor[None]]
    for picture in pictures:
        np.testing.assert_array_equal(model.predict(picture).mask, expected)
    assert expected.shape == ((150, 100) if orientation == 6 else (100, 150))


@pytest.mark.parametrize(
    ("typed", "options"),
    [
        ("--window 40 64 --overlap 0.5", {"window": (40, 64), "overlap": 0.5}),
        ("--window 48 --batch 3", {"window": 48, "batch": 3}),
        ("--tta --precision bf16-mixed", {"tta": True, "precision": "bf16-mixed"}),
        ("--window none", {"window": "none"}),
        ("--window 0", {"window": 0}),
    ],
)
def test_options_mean_the_same(typed: str, options: dict[str, Any]) -> None:
    photo("a.png", 450, 330)
    np.testing.assert_array_equal(
        load("box.safetensors").predict("a.png", **options).mask, by_command_line("a.png", *typed.split())
    )


def test_what_comes_back(tmp_path: Path) -> None:
    photo("a.png")
    seen = load("box.safetensors").predict("a.png")
    by_command_line("a.png")
    assert seen.classes == ("road", "car", "sky")
    assert seen.palette[0] == (128, 64, 128)
    assert seen.shares == json.loads(Path("segmented/a.json").read_text())["classes"]
    seen.save("out/b.png")
    assert Path("out/b.png").read_bytes() == Path("segmented/a.png").read_bytes()
    seen.save_overlay("out/b.jpg")
    assert Path("out/b.jpg").read_bytes() == Path("segmented/a_overlay.jpg").read_bytes()
    assert seen.overlay().width == 150
    with pytest.raises(InputError, match="kept by PNG alone"):
        seen.save("out/b.jpg")


def test_predicting_leaves_a_model_in_training_as_it_was() -> None:
    photo("a.png")
    model = load("box.safetensors").train()
    model.backbone.eval()
    expected = by_command_line("a.png")
    np.testing.assert_array_equal(model.predict("a.png").mask, expected)
    assert model.head.training
    assert not model.backbone.training


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((8, 8, 3)), "An array of float64 is no picture: give uint8"),
        (np.zeros((8, 8, 4), dtype=np.uint8), r"An array of shape \(8, 8, 4\) is no picture"),
        (torch.rand(3, 8, 8) * 255, "give floats in 0..1"),
        (torch.rand(8, 8, 3), r"A tensor of shape \(8, 8, 3\) is no picture"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "A tensor of torch.int64 is no picture"),
        ("nowhere.jpg", "^nowhere.jpg: no such file$"),
        (Image.new("I;16", (8, 8)), "A picture of mode I;16"),
        ([[1]], "A list is no picture"),
    ],
)
def test_what_is_no_picture_is_named(picture: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load("box.safetensors").predict(picture)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (0, 5)}, "window"),
        ({"window": "small"}, "auto or none"),
        ({"window": (1, 2, 3)}, "window"),
        ({"overlap": 1}, "overlap 1 is not a share"),
        ({"batch": 0}, "batch is 0"),
        ({"precision": "half"}, 'precision cannot be "half"'),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        segmenter.Options(**options)


def test_a_model_made_by_hand_says_what_it_lacks() -> None:
    backbone = TimmBackbone("test_resnet")
    model = Segmentor(backbone, FCN(backbone.channels, 3, channels=8))
    with pytest.raises(InputError, match=r"made by hand.*model\.info"):
        model.predict("a.png")


def test_the_network_refuses_what_is_not_in_0_to_1() -> None:
    model = load("box.safetensors")
    images = torch.rand(1, 3, 32, 32)
    model(images)
    for wrong in ((images * 255).byte(), (images * 255).long()):
        with pytest.raises(InputError, match=r"give floats in 0\.\.1 \(divide by 255\), or call predict\(image\)"):
            model(wrong)
    with pytest.raises(InputError, match=r"Images up to 25\d"):
        model(images * 255)


# A picture much larger than what the weights know


def test_a_much_larger_picture_is_seen_closer_in_windows(capsys: pytest.CaptureFixture[str]) -> None:
    photo("large.png", 900, 600)
    photo("small.png", 380, 280)
    assert main(["segment", "large.png", "small.png", "--weights", "box.safetensors"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 2
    assert err == (
        "large.png, 900x600, is 14 times as wide and high as what tiny knows: seen as a whole of 64x43, and 2 times "
        "closer in windows of that size. --window none: the whole alone; --window H W: at its own resolution\n"
    )
    how = json.loads(Path("segmented/large.json").read_text())["protocol"]
    assert (how["mode"], how["crop"], how["scales"], how["fit"]) == ("slide", [43, 64], [1, 2], [64, 48])
    assert json.loads(Path("segmented/small.json").read_text())["protocol"]["mode"] == "whole"
    model = load("box.safetensors")
    np.testing.assert_array_equal(model.predict("large.png").mask, np.array(Image.open("segmented/large.png")))
    blobs = model.predict("large.png", window="none")
    assert (blobs.protocol.mode, blobs.protocol.scales) == ("whole", (1.0,))


def test_the_line_names_a_window_that_was_chosen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny(Path("box.safetensors"))
    monkeypatch.setattr(segmenter, "WHOLE", 5000)
    monkeypatch.setattr(segmenter, "WINDOW", (32, 48))
    photo("a.png")
    photo("b.png")
    assert main(["segment", "a.png", "b.png", "--weights", "box.safetensors"]) == 0
    assert capsys.readouterr().err == (
        "a.png, 150x100, is seen in windows of 48x32. --window none: the whole alone; "
        "--window H W: at its own resolution\n"
    )
    assert main(["segment", "a.png", "--weights", "box.safetensors", "--window", "none"]) == 0
    assert capsys.readouterr().err == ""
    assert json.loads(Path("segmented/a.json").read_text())["protocol"]["mode"] == "whole"
