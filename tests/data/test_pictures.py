"""Pictures as they come: every kind is read, upright and in its colours, or named in one line with the fix."""

import os
import re
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import DEEP, SIZE, bmp, corpus, damaged, png, saved, scene, turned, write_corpus
from PIL import Image

from lightning_app.data import images
from lightning_app.data.bad_file import BadFile
from lightning_app.data.images import image_size, left_out, read_header, read_image
from lightning_app.data.masks import MaskReader
from lightning_app.util.extras import install

pytestmark = pytest.mark.filterwarnings("ignore")  # pytest shows what the program silences
CORPUS = corpus()
MASKS = MaskReader({value: value for value in range(256)})


def put(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("name", CORPUS)
def test_every_kind_is_read_or_is_too_deep(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, name, CORPUS[name])
    if name.startswith(DEEP):
        with pytest.raises(BadFile, match=r"More than 8 bits a channel\. Scale the values"):
            read_image(path)
        return
    assert read_image(path).shape == (*image_size(path), 3)


@pytest.mark.parametrize("name", [name for name in CORPUS if name.startswith("turned")])
def test_every_orientation_of_every_format_is_turned_upright(tmp_path: Path, name: str) -> None:
    """A viewer shows the stored rows as the orientation says; so do we, and the header knows the size."""
    flips = {2: [0], 3: [3], 4: [1], 5: [5], 6: [4], 7: [6], 8: [2]}  # PIL.Image.Transpose's numbers, by EXIF's table
    wanted = scene()
    orientation = int(name[6])
    for method in flips.get(orientation, []):
        wanted = wanted.transpose(Image.Transpose(method))
    path = put(tmp_path, name, CORPUS[name])
    assert read_header(path).orientation == orientation
    assert image_size(path) == (SIZE if orientation >= 5 else SIZE[::-1])
    difference = np.abs(read_image(path).astype(int) - np.asarray(wanted).astype(int))
    assert np.median(difference) <= 8


@pytest.mark.parametrize("name", ["CMYK.jpg", "ycck.jpg", "CMYK.tif", "RGB_jpeg.tif", "colour.avif", "planar.tif"])
def test_colours_come_out_right(tmp_path: Path, name: str) -> None:
    """CMYK JPEG is stored inverted, as Adobe began it."""
    if name not in CORPUS:
        pytest.skip("Pillow was built without this format")
    difference = np.abs(read_image(put(tmp_path, name, CORPUS[name])).astype(int) - np.asarray(scene()).astype(int))
    assert np.median(difference) <= 8


def test_depth_is_told_by_the_format(tmp_path: Path) -> None:
    depths = {"wide_grey.bmp": 8, "strips.tif": 8, f"{DEEP}12.tif": 12, f"{DEEP}type2_16bit.png": 16, "L.pgm": 8}
    depths |= {f"{DEEP}grey_12.pgm": 16, "type3_2bit.png": 2, "colour.jp2": 8, f"{DEEP}grey.jp2": 16}
    for name in depths.keys() & CORPUS.keys():
        assert read_header(put(tmp_path, name, CORPUS[name])).bits == depths[name], name


def refusals(folder: Path, seed: int) -> list[str]:
    """What is said of every kind of picture with a header that lies; anything but a BadFile goes through."""
    said = []
    for number, (name, content) in enumerate(CORPUS.items()):
        path = put(folder, name, damaged(content, 1000 * number + seed))
        for read in (read_image, MASKS, image_size):
            try:
                read(path)
            except BadFile as error:
                said.append(str(error))
    return said


@pytest.mark.parametrize("seed", range(4))
def test_headers_that_lie_are_read_or_one_line(tmp_path: Path, seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    said = refusals(tmp_path, seed)
    assert len(said) > 100
    for line in said:
        assert line.startswith(str(tmp_path))
        assert "\n" not in line
    assert capfd.readouterr() == ("", "")  # libtiff would write lines of its own, without the file's name


@pytest.mark.slow
def test_many_more_headers_that_lie(tmp_path: Path) -> None:
    for seed in range(4, 100):
        assert not any("\n" in line for line in refusals(tmp_path, seed))


def test_a_header_of_billions_of_pixels_is_corrupt_and_fills_no_memory(tmp_path: Path) -> None:
    for name, content in (
        ("a.bmp", bmp(60_000, 60_000, 24, bytes(100))),
        ("b.bmp", bmp(25_000, 25_000, 8, bytes(100), palette=bytes(1024))),
        ("c.ppm", b"P6\n40000 20000\n255\n" + bytes(99)),
    ):
        with pytest.raises(BadFile, match=r"Corrupt header \(\d+x\d+ pixels in \d+ bytes\)\. Get the file again"):
            read_image(put(tmp_path, name, content))


def test_no_memory_is_said_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "a.png", saved(scene(), "PNG"))

    def none(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images.np, "empty", none)
    with pytest.raises(BadFile, match=r"a\.png: More than fits into memory \(37x23\)\. Cut it into tiles"):
        read_image(path)


@pytest.mark.parametrize("raised", [OverflowError("too large"), ZeroDivisionError(), SyntaxError("x"), KeyError("P")])
def test_whatever_a_decoder_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    path = put(tmp_path, "a.png", saved(scene(), "PNG"))

    def fails(self: object) -> None:
        raise raised

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fails)
    with pytest.raises(BadFile, match=r"a\.png: Unreadable \(.+\)\. Get the file again\."):
        read_image(path)


def test_one_limit_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above Pillow's own limit, which is 179 million, and below ours."""
    large = put(tmp_path, "large.png", png(14_000, 13_000, 1, 0))
    before = Image.MAX_IMAGE_PIXELS
    assert image_size(large) == (13_000, 14_000)
    assert MASKS.raw(put(tmp_path, "long.png", png(200_000, 1, 1, 0))).shape == (1, 200_000)
    assert before == Image.MAX_IMAGE_PIXELS
    monkeypatch.setenv("CONTEXTZOO_MAX_PIXELS", "1e8")
    for read in (image_size, read_image, MASKS):
        with pytest.raises(BadFile, match=r"14000x13000, and the limit is 100000000\)\. .* set CONTEXTZOO_MAX_PIXELS"):
            read(large)
    monkeypatch.setenv("CONTEXTZOO_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match="CONTEXTZOO_MAX_PIXELS is many: give a number of pixels"):
        image_size(large)


KINDS = {
    "pipe": "A pipe, socket or device, not a file",
    "socket": "A pipe, socket or device, not a file",
    "device": "A pipe, socket or device, not a file",
    "folder": "A folder, not a file",
    "loop": "Cannot be opened",
    "dangling": "A link to nothing",
    "missing": "No such file",
    "empty": "Unreadable (the file is empty)",
    "no pixels": "Unreadable (its header is damaged, or says 0 pixels)",
    "text": "Unreadable (not a picture of a known format)",
}


def make(path: Path, kind: str) -> None:
    """Something that is no picture."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind in ("loop", "dangling"):
        path.symlink_to(path if kind == "loop" else path.with_name("nothing.png"))
    elif kind == "no pixels":
        path.write_bytes(png(0, 5, 8, 2))
    elif kind != "missing":
        path.write_bytes(b"some text" if kind == "text" else b"")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", [read_image, MASKS, image_size], ids=["image", "mask", "size"])
def test_what_is_no_picture_is_one_line_and_never_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, read: object
) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    make(Path("x.png"), kind)
    assert callable(read)
    with pytest.raises(BadFile) as error:
        read(Path("x.png"))
    assert str(error.value).startswith(f"x.png: {KINDS[kind]}")
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = put(tmp_path, "a.png", saved(scene(), "PNG"))
    path.chmod(0)
    with pytest.raises(BadFile, match=r"a\.png: No permission to read it\. Give it \(chmod\)"):
        read_image(path)


@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (1, 10_000)])
def test_thin_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    path = put(tmp_path, "a.png", saved(Image.new("RGB", size, (1, 2, 3)), "PNG"))
    assert read_image(path).shape == (size[1], size[0], 3)


def test_heic_is_read_or_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by its content: telephones call it .jpg as well."""
    heif = pytest.importorskip("pillow_heif")
    path = put(tmp_path, "photo.jpg", b"")
    heif.from_pillow(scene(size=(64, 48))).save(path, format="HEIF", exif=turned(6).tobytes())
    assert read_image(path).shape == (*image_size(path), 3)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadFile, match=re.escape(f"HEIC needs pillow-heif. {install('heic')}")):
        read_image(path)


def test_avif_without_support_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "a.avif", b"\0\0\0\x20ftypavif" + bytes(40))
    monkeypatch.setattr("lightning_app.data.picture_files.features.check", lambda name: False)
    with pytest.raises(BadFile, match=r"AVIF needs Pillow 11\.3 or newer\. pip install -U pillow"):
        read_image(path)


def test_files_left_out_are_counted(tmp_path: Path) -> None:
    for name in ("a.txt", "b.TXT", "c.psd", "readme"):
        put(tmp_path, name, b"")
    assert left_out(tmp_path.iterdir()) in {
        f"4 files of other types left out (.txt 2, {rest})" for rest in ("readme 1, .psd 1", ".psd 1, readme 1")
    }
    assert left_out([]) == ""
    assert len(write_corpus(tmp_path / "all")) == len(CORPUS)
