"""segment of TIFFs that are read and written by windows: what it writes, where that lies, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny import CLASSES, PALETTE
from torch import Tensor, nn
from weights import describe_tiny, write_tiny

from lightning_app.app.cli import main
from lightning_app.backbones.patchify import Patchify
from lightning_app.data.bad_file import BadFile
from lightning_app.data.rasters import BLOCK, Raster, is_raster
from lightning_app.tasks.semantic import rasters
from lightning_app.tasks.semantic.draw import overlay
from lightning_app.tasks.semantic.protocol import EvaluationProtocol
from lightning_app.tasks.semantic.rasters import segment_raster
from lightning_app.tasks.semantic.segmenter import Options, Segmenter
from lightning_app.weights.load import load

rasterio = pytest.importorskip("rasterio")
HEIGHT, WIDTH = 500, 700
PLACE = rasterio.Affine(0.5, 0.1, 300_000, 0.1, -0.5, 5_000_000)  # turned a little


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the weights tiny.safetensors."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "tiny.safetensors")
    return tmp_path


def smooth(bands: int = 3, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """(bands, height, width)."""
    coarse = np.random.default_rng(0).integers(256, size=(height // 10, width // 10, bands), dtype=np.uint8)
    each = [
        Image.fromarray(coarse[..., band]).resize((width, height), Image.Resampling.BICUBIC) for band in range(bands)
    ]
    return np.stack([np.array(band) for band in each])


def write(path: str, pixels: NDArray[Any], **options: Any) -> NDArray[Any]:
    count, height, width = pixels.shape
    colours = options.pop("colorinterp", None)
    profile = {"driver": "GTiff", "crs": "EPSG:32633", "transform": PLACE, "dtype": pixels.dtype} | options
    with rasterio.open(path, "w", count=count, height=height, width=width, **profile) as file:
        file.write(pixels)
        if colours:
            file.colorinterp = [rasterio.enums.ColorInterp[name] for name in colours]
    return pixels


def run(typed: str) -> int:
    return main(["segment", "--weights", "tiny.safetensors", *typed.split()])


def test_a_file_on_a_map_gives_what_the_whole_gives(capsys: pytest.CaptureFixture[str]) -> None:
    pixels = write("big.tif", smooth(), tiled=True, blockxsize=128, blockysize=128, compress="deflate")
    Image.fromarray(pixels.transpose(1, 2, 0)).save("whole.png")
    assert run("big.tif --window 128 160 --overlap 0.25 --batch 2") == 0
    assert capsys.readouterr().out.rstrip().endswith("-> segmented/big.tif")
    assert run("whole.png --window 128 160 --overlap 0.25") == 0
    expected = np.array(Image.open("segmented/whole.png"))
    with rasterio.open("segmented/big.tif") as file:
        ids = file.read(1)
        assert (file.crs.to_epsg(), file.transform, file.nodata) == (32633, PLACE, 255)
        assert file.overviews(1) == [2]
        assert file.profile["compress"] == "deflate"
        assert [file.colormap(1)[number][:3] for number in range(3)] == list(PALETTE)
        assert file.tags()["classes"] == "0 road\n1 car\n2 sky"
    assert len(np.unique(ids)) > 1
    assert (ids == expected).mean() > 0.9999  # sums in another order round
    facts = json.loads(Path("segmented/big.json").read_text())
    assert (facts["height"], facts["width"], facts["data"]) == (HEIGHT, WIDTH, 1.0)
    assert facts["protocol"]["crop"] == [128, 160]
    assert facts["classes"] == {CLASSES[i]: pytest.approx((ids == i).mean()) for i in np.unique(ids)}
    assert sorted(path.name for path in Path("segmented").glob("big*")) == ["big.json", "big.tif", "big_overlay.jpg"]
    assert Image.open("segmented/big_overlay.jpg").width == WIDTH
    assert Image.open("segmented/big.tif").mode == "P"


def test_tiles_and_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    write("big.tif", smooth(3, 1200, 1300))
    assert run("big.tif --window 200 --overlap 0.5 --out a") == 0
    monkeypatch.setattr(rasters, "ROOM", 4 * (3 + 4) * 200 * BLOCK)  # one block wide
    assert run("big.tif --window 200 --overlap 0.5 --out b") == 0
    a, b = (rasterio.open(f"{name}/big.tif").read(1) for name in "ab")
    assert (a == b).mean() > 0.9999


def test_the_picture_for_people_shows_all_of_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write("big.tif", smooth(3, 1200, 1300))
    monkeypatch.setattr(rasters, "ROOM", 4 * (3 + 4) * 200 * BLOCK)  # several blocks in both directions
    monkeypatch.setattr(rasters, "PREVIEW", 65)
    segmenter = load("tiny.safetensors").segmenter(Options(window=200))
    seen = segment_raster(segmenter, Path("big.tif"), Path("ids.tif"))
    ids = rasterio.open("ids.tif").read(1)[10::20, 10::20]
    assert ids.shape == (60, 65)
    shown = overlay(pixels[:, 10::20, 10::20].transpose(1, 2, 0).copy(), ids, CLASSES, PALETTE)
    assert np.array_equal(np.array(seen.preview), np.array(shown))


def test_pixels_without_data_have_no_class() -> None:
    pixels = smooth()
    pixels[:, :100, :200] = 7
    write("nodata.tif", pixels, nodata=7)
    alpha = np.full((1, HEIGHT, WIDTH), 255, dtype=np.uint8)
    alpha[:, :100, :200] = 0
    write("alpha.tif", np.concatenate([pixels, alpha]), colorinterp=["red", "green", "blue", "alpha"])
    assert run("nodata.tif alpha.tif --window 200") == 0
    for name in ("nodata", "alpha"):
        with rasterio.open(f"segmented/{name}.tif") as file:
            ids = file.read(1)
        empty = ids == 255
        assert empty[:100, :200].all()
        assert empty[100:].sum() + empty[:100, 200:].sum() < 20  # a few that are 7 by chance
        facts = json.loads(Path(f"segmented/{name}.json").read_text())
        assert facts["data"] == pytest.approx(1 - empty.mean())
        assert sum(facts["classes"].values()) == pytest.approx(1)


def test_a_network_of_four_bands_sees_four(capsys: pytest.CaptureFixture[str]) -> None:
    model = describe_tiny()["model"]
    model["backbone"]["init_args"] |= {"in_channels": 4, "pretrained": False}
    write_tiny(Path("four.safetensors"), model=model)
    pixels = write("four.tif", smooth(4))  # whose last band GDAL calls alpha, as it does with many of near infrared
    assert main(["segment", "four.tif", "--weights", "four.safetensors", "--window", "200", "--overlap", "0"]) == 0
    assert capsys.readouterr().err == ""
    network = load("four.safetensors")
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels[None, :, :200, :200]) / 255).argmax(1)[0].numpy()
    ids = rasterio.open("segmented/four.tif").read(1)
    assert (ids[:200, :200] == expected).mean() > 0.999
    write("four.tif", smooth(4), alpha="no")
    assert run("four.tif --window 200 --out three") == 0
    assert capsys.readouterr().err == "four.tif: its last 1 band is left out: tiny sees 3\n"
    write("three.tif", smooth(3))
    assert main(["segment", "three.tif", "--weights", "four.safetensors"]) == 1
    assert "three.tif: Too few bands (3). The network takes 4 channels" in capsys.readouterr().err


def test_grey_and_pages_of_channels() -> None:
    grey = write("grey.tif", smooth(1))
    with Raster(Path("grey.tif"), 3, (0.5,) * 3) as raster:
        assert raster.shape == (1, 3, HEIGHT, WIDTH)
        window = raster[..., slice(10, 30), slice(600, 650)]
    np.testing.assert_array_equal(window[0], np.repeat(grey[:, 10:30, 600:650], 3, axis=0))
    pixels = smooth(3)  # as OME-TIFF has them: one page for each channel
    first, *others = [Image.fromarray(band) for band in pixels]
    first.save("a.ome.tif", save_all=True, append_images=others)
    assert is_raster(Path("a.ome.tif"))
    with Raster(Path("a.ome.tif"), 3, (0.5,) * 3) as raster:
        window = raster[..., slice(10, 30), slice(600, 650)]
    np.testing.assert_array_equal(window[0], pixels[:, 10:30, 600:650])
    with pytest.raises(BadFile, match="A stack of pages"):
        Raster(Path("a.ome.tif"), 4, (0.5,) * 4)


def test_which_files_are_read_by_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(smooth().transpose(1, 2, 0)).save("photo.tif")
    Path("not.tif").write_bytes(b"II*\0 nothing")
    write("map.tif", smooth())
    write("large.btf", smooth(), crs=None, transform=None, bigtiff="yes")
    assert [is_raster(Path(name)) for name in ("photo.tif", "not.tif", "map.tif", "large.btf", "no.tif")] == [
        False, False, True, False, False,
    ]  # fmt: skip
    monkeypatch.setattr("lightning_app.data.rasters.LARGE", 1000)
    assert is_raster(Path("large.btf"))
    assert run("photo.tif large.btf --window 200") == 0
    assert Path("segmented/photo.tif").exists()
    with rasterio.open("segmented/large.tif") as file:
        assert file.crs is None


def test_windows_are_those_of_the_weights_unless_asked() -> None:
    network, size = nn.Identity(), (3000, 5000)

    def crop(how: EvaluationProtocol, options: Options = Options()) -> Any:
        got = rasters.raster_protocol(Segmenter(network, how, CLASSES, PALETTE, options), size)
        assert (got.mode, got.scales, got.fit) == ("slide", (1.0,), None)
        return got.crop, got.stride

    assert crop(EvaluationProtocol()) == ((1024, 1024), None)
    assert crop(EvaluationProtocol(fit=(240, 180))) == ((144, 240), None)
    assert crop(EvaluationProtocol("slide", crop=(512, 256), stride=(341, 200))) == ((512, 256), (341, 200))
    assert crop(EvaluationProtocol(fit=(240, 180)), Options(window=100, overlap=0.5)) == ((100, 100), (50, 50))


@pytest.mark.parametrize(
    ("options", "pixels", "typed", "status", "words"),
    [
        ({}, smooth(3, 20, 30).astype(np.uint16), "", 1, "a.tif: Other numbers than bytes (uint16). Scale"),
        ({}, smooth(2, 20, 30), "", 1, "a.tif: Too few bands (2)"),
        ({"photometric": "palette"}, smooth(1, 20, 30), "", 1, "a.tif: A colour table. gdal_translate -expand rgb"),
        ({}, smooth(3, 20, 30), "--tta", 2, "--tta needs the whole picture in memory"),
        ({}, smooth(3, 20, 30), "--window none", 2, "--window none needs the whole picture in memory"),
        ({}, smooth(3, 20, 30), "--out .", 2, "a.tif would be overwritten by its own result: give another --out"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_leaves_nothing(
    options: Any, pixels: Any, typed: str, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a.tif", pixels, **options)
    before = Path("a.tif").read_bytes()
    assert run(f"a.tif {typed}") == status
    assert capsys.readouterr().err.startswith(words)
    assert not Path("segmented").exists() or not list(Path("segmented").iterdir())
    assert Path("a.tif").read_bytes() == before


def test_a_file_cut_short_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write("a.tif", np.random.default_rng(0).integers(256, size=(3, HEIGHT, WIDTH), dtype=np.uint8), compress="deflate")
    content = Path("a.tif").read_bytes()
    Path("a.tif").write_bytes(content[: len(content) // 2])
    assert run("a.tif --window 200") == 1
    error = capsys.readouterr().err
    assert error.startswith("a.tif: Unreadable (")
    assert not list(Path("segmented").iterdir())


class Peek(nn.Module):
    """A network that remembers how much it was shown at once."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.classify, self.most = Patchify(4, 1, levels=1), nn.Conv2d(4, 2, 1), 0

    def forward(self, images: Tensor) -> Tensor:
        self.most = max(self.most, images.numel())
        return self.classify(self.backbone(images)[0])


def test_never_more_than_a_window_is_seen() -> None:
    write("a.tif", smooth())
    network, shares = Peek(), []
    segmenter = Segmenter(network, EvaluationProtocol(), ("a", "b"), PALETTE[:2], Options(window=100))
    seen = segment_raster(segmenter, Path("a.tif"), Path("out.tif"), shares.append)
    assert network.most == 3 * 100 * 100
    assert sum(shares) == pytest.approx(1)
    assert seen.size == (HEIGHT, WIDTH)
