"""Bad files: named by ``contextzoo data check`` all at once, and in training by the first error."""

import os
import random
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from data.make_fakes import camvid
from PIL import Image

from lightning_app.app import cli
from lightning_app.data import CamVid, Folder, headers, images
from lightning_app.data.picture_files import Header
from lightning_app.data.semantic.check import check
from lightning_app.util.errors import InputError

WIDTH, HEIGHT = 16, 12
NAMES = [f"img_{i:04d}" for i in range(8)]


def noise(mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT), seed: int = 1) -> Image.Image:
    dice = random.Random(seed)
    return Image.frombytes("RGB", size, dice.randbytes(3 * size[0] * size[1])).convert(mode)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound dataset of two classes, to be spoilt."""
    for split in ("train", "val"):
        for name in NAMES:
            image, mask = (tmp_path / kind / split / f"{name}.png" for kind in ("images", "masks"))
            for path in (image, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            noise(seed=int(split == "val")).save(image)
            Image.fromarray(np.random.default_rng(0).integers(2, size=(HEIGHT, WIDTH), dtype=np.uint8)).save(mask)
    (tmp_path / "classes.txt").write_text("off\non\n")
    return tmp_path


def folder(root: Path, workers: int = 0) -> Folder:
    return Folder(root, crop_size=(8, 8), batch_size=4, num_workers=workers, test_split="val")


def rotated(path: Path) -> None:
    """The picture lies on its side and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(size=(HEIGHT, WIDTH)).save(path, exif=exif)


def sixteen_bit_rgb(path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(6 * WIDTH) for _ in range(HEIGHT))
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def spoil(image: Path, mask: Path, how: str) -> None:
    actions = {
        "missing mask": mask.unlink,
        "missing image": image.unlink,
        "sizes": lambda: noise(size=(WIDTH, HEIGHT + 1)).save(image),
        "raw value": lambda: Image.new("L", (WIDTH, HEIGHT), 7).save(mask),
        "truncated image": lambda: truncate(image),
        "truncated mask": lambda: truncate(mask),
        "empty": lambda: image.write_bytes(b""),
        "16-bit grey": lambda: Image.fromarray(np.full((HEIGHT, WIDTH), 999, dtype=np.uint16)).save(image),
        "16-bit rgb": lambda: sixteen_bit_rgb(image),
        "float": lambda: (noise("F").save(image.with_suffix(".tif")), image.unlink()),
    }
    actions[how]()


FAULTS = {
    "missing mask": ("Missing masks: img_0003.", "have no mask, such as"),
    "missing image": ("Masks without an image: img_0003.", "have no image, such as"),
    "sizes": (
        "Sizes differ: img_0003.png (16x13 vs 16x12).",
        r"img_0003\.png: Sizes differ \(16x13 vs 16x12\)\. Ex",
    ),
    "raw value": (
        "Raw value 7: in no class, 1 image (img_0003.png).",
        r"img_0003\.png: Raw value 7: in no class\. A",
    ),
    "truncated image": ("Unreadable: img_0003.png (", r"images/train/img_0003\.png: Unreadable \(.*\)\. Get the file"),
    "truncated mask": ("Unreadable: img_0003.png (", r"masks/train/img_0003\.png: Unreadable \(.*\)\. Get the file"),
    "empty": ("Unreadable: img_0003.png (", r"img_0003\.png: Unreadable \(the file is empty\)"),
    "16-bit grey": ("More than 8 bits a channel: img_0003.png.", r"img_0003\.png: More than 8 bits a channel\. Scale"),
    "16-bit rgb": ("More than 8 bits a channel: img_0003.png.", r"img_0003\.png: More than 8 bits a channel\. Scale"),
    "float": ("More than 8 bits a channel: img_0003.tif.", r"img_0003\.tif: More than 8 bits a channel\. Scale"),
}


@pytest.mark.parametrize("how", FAULTS)
def test_a_fault_is_found_before_and_named_in_training(root: Path, how: str) -> None:
    assert check(folder(root)) == []
    spoil(root / "images" / "train" / "img_0003.png", root / "masks" / "train" / "img_0003.png", how)
    said, raised = FAULTS[how]
    (finding,) = check(folder(root))
    assert str(finding).startswith(said)
    assert finding.fatal
    assert finding.split == "train"
    assert finding.fix
    with pytest.raises(InputError, match=raised):
        list(folder(root).train_dataloader())


def test_the_error_comes_out_of_a_worker_as_it_is(root: Path) -> None:
    Image.new("L", (WIDTH, HEIGHT), 7).save(root / "masks" / "train" / "img_0003.png")
    with pytest.raises(InputError) as error:
        list(folder(root, workers=1).train_dataloader())
    assert str(error.value).endswith(
        "img_0003.png: Raw value 7: in no class. Add it to label_map (255 to ignore it) or correct the mask."
    )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("problem", "make"),
    [
        ("Greyscale", lambda path: noise("L").save(path)),
        ("Alpha channel", lambda path: noise("RGBA").save(path)),
        ("Rotated by EXIF", rotated),
    ],
)
def test_what_can_be_handled_is_handled_and_said(root: Path, problem: str, make: object) -> None:
    assert callable(make)
    make(root / "images" / "val" / "img_0003.png")
    (finding,) = check(folder(root))
    assert (finding.problem, finding.fatal, finding.files) == (problem, False, ("img_0003.png",))
    images = [batch.image for batch in folder(root).val_dataloader()]
    assert {tuple(image.shape) for image in images} == {(1, 3, HEIGHT, WIDTH)}
    if problem == "Greyscale":
        assert (images[3][0, 0] == images[3][0, 2]).all()
    if problem == "Alpha channel":
        assert (images[3] == images[0]).all()


def test_two_files_with_one_name(root: Path) -> None:
    noise().save(root / "images" / "train" / "img_0003.jpg")
    with pytest.raises(InputError, match=r"img_0003\.jpg and img_0003\.png share a name"):
        folder(root).setup("fit")


def test_an_empty_folder(root: Path) -> None:
    for kind in ("images", "masks"):
        for path in (root / kind / "train").iterdir():
            path.unlink()
    assert [str(finding) for finding in check(folder(root))] == ["No images."]
    with pytest.raises(InputError, match='no images in split "train"'):
        folder(root).setup("fit")


def test_images_of_several_sizes_need_a_crop(root: Path) -> None:
    noise(size=(20, 20)).save(root / "images" / "train" / "img_0003.png")
    Image.new("L", (20, 20)).save(root / "masks" / "train" / "img_0003.png")
    module = Folder(root, batch_size=8, num_workers=0)
    with pytest.raises(InputError, match=r"no batch\. Give --data\.crop_size"):
        list(module.train_dataloader())


def test_check_as_typed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "check", "--data", "Folder", f"--data.root={root}", "--data.test_split", "val"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == ("train: 8 images, 8 masks. All usable.\nval: 8 images, 8 masks. All usable.\n")
    for i, how in enumerate(["missing mask", "missing mask", "sizes", "raw value"]):
        spoil(root / "images" / "train" / f"{NAMES[i]}.png", root / "masks" / "train" / f"{NAMES[i]}.png", how)
    rotated(root / "images" / "val" / "img_0000.png")
    assert cli.main(command) == 1
    assert capsys.readouterr().out == (
        "train: 8 images, 6 masks.\n"
        "  fatal: Missing masks: img_0000, img_0001. Add the masks or remove the images.\n"
        "  fatal: Sizes differ: img_0002.png (16x13 vs 16x12). Export the mask at the size of the upright image.\n"
        "  fatal: Raw value 7: in no class, 1 image (img_0003.png). Add it to label_map (255 to ignore it) or correct"
        " the mask.\n"
        "val: 8 images, 8 masks. All usable.\n"
        "  harmless: Rotated by EXIF: img_0000.png. Turned upright; the mask must be upright too.\n"
        "3 fatal, 1 harmless\n"
    )


def test_stats_as_typed(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    for name in NAMES:
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        mask[0], mask[1] = 1, 255
        Image.fromarray(mask).save(root / "masks" / "train" / f"{name}.png")
    assert cli.main(["data", "stats", "--data", "Folder", f"--data.root={root}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "class\tpixels\tshare %\tlog_frequency\tbalanced"
    assert lines[1].split("\t")[:3] == ["off", "1280", "90.91"]
    assert lines[2].split("\t")[:3] == ["on", "128", "9.09"]
    assert float(lines[2].split("\t")[3]) > float(lines[1].split("\t")[3])
    assert lines[3:] == [
        "ignored: 8.33 % of 1536 pixels",
        "image sizes: 16x12 (8)",
        "width 16 to 16, height 12 to 12",
    ]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["chek"], 'Unknown command "data chek". Did you mean "check"?'),
        (["check"], "--data is required"),
        (["check", "--data", "CamVd"], 'Unknown data "CamVd". Did you mean "CamVid"?'),
        (["check", "--data", "CamVid", "--data.rot", "x"], 'Unknown option "rot". Did you mean "root"?'),
        (
            ["check", "--data", "Folder", "--data.root", "/no/such"],
            "/no/such does not exist: the root of the data.",
        ),
        (["check", "-c", "data/camvid", "--data.root", "/no/such"], "/no/such does not exist"),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(
    typed: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", *typed]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(said)
    assert "\n" not in error


def test_a_test_split_that_was_not_downloaded_is_no_fault(tmp_path: Path) -> None:
    camvid(tmp_path)
    (finding,) = check(CamVid(tmp_path))
    assert "--data.test_split val" in str(finding)
    assert not finding.fatal
    assert all(finding.fatal for finding in check(CamVid(tmp_path, val_split="test")))


def found(root: Path) -> dict[str, tuple[bool, tuple[str, ...]]]:
    return {finding.problem: (finding.fatal, finding.files) for finding in check(folder(root))}


def test_one_photo_in_two_splits_is_found_by_its_content(root: Path) -> None:
    photo = Image.effect_noise((64, 64), 90).resize((320, 240), Image.Resampling.BICUBIC).convert("RGB")
    for split, name, options in (("train", "a.png", {}), ("val", "b.png", {}), ("val", "c.jpg", {"quality": 80})):
        photo.save(root / "images" / split / name, **options)
        Image.new("L", photo.size).save(root / "masks" / split / f"{name[0]}.png")
    assert found(root) == {
        "The same photo": (True, ("a.png = b.png",)),
        "Almost the same photo": (False, ("a.png = c.jpg",)),
    }


def test_a_mask_with_nothing_labelled_is_said(root: Path) -> None:
    Image.new("L", (WIDTH, HEIGHT), 255).save(root / "masks" / "train" / "img_0003.png")
    assert found(root) == {"Nothing labelled": (False, ("img_0003.png",))}


def test_a_lossy_mask_is_one_finding(root: Path) -> None:
    path = root / "masks" / "train" / "img_0003.png"
    Image.open(path).point([0, 1, *[0] * 254]).resize((160, 120)).point([0, 200, *[255] * 254]).save(path, "JPEG")
    noise(size=(160, 120)).save(root / "images" / "train" / "img_0003.png")
    ((problem, (fatal, (name,))),) = found(root).items()
    assert problem == "A mask saved as JPEG, which is lossy"
    assert fatal
    assert "raw values in no class, such as" in name


def test_a_clash_of_names_hides_nothing_else(root: Path) -> None:
    noise().save(root / "images" / "train" / "img_0003.jpg")
    (root / "masks" / "train" / "img_0005.png").unlink()
    (root / "images" / "val" / "notes.txt").write_text("")
    said = found(root)
    assert said["Two images of one name"] == (True, ("img_0003.jpg and img_0003.png",))
    assert said["Missing masks"] == (True, ("img_0005",))
    assert said["Images: 1 file of other types left out (.txt 1)"] == (False, ())


def test_cmyk_is_said(root: Path) -> None:
    noise().convert("CMYK").save(root / "images" / "train" / "img_0003.jpg")
    (root / "images" / "train" / "img_0003.png").unlink()
    assert found(root) == {"CMYK, of printing": (False, ("img_0003.jpg",))}


@pytest.mark.parametrize("how", ["sizes", "16-bit rgb", "empty", "pipe"])
def test_fit_looks_at_all_headers_before_its_first_step(
    root: Path, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    for number in (3, 4):
        image, mask = (root / kind / "val" / f"img_000{number}.png" for kind in ("images", "masks"))
        if how == "pipe":
            image.unlink()
            os.mkfifo(image)
        else:
            spoil(image, mask, how)
    typed = f"fit --data Folder --data.root {root} -c backbone/patch8 --model.head FCN --trainer.max_epochs 1"
    assert cli.main(typed.split()) == 2
    error = capsys.readouterr().err
    assert f"{root}/" in error.splitlines()[-1]
    assert error.endswith("(1 more such files: contextzoo data check)\n")
    assert not (root / "runs").exists()


def test_headers_are_remembered_until_a_file_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    folder(root).check_headers("train")
    read: list[Path] = []

    def reading(path: Path) -> Header:
        read.append(path)
        return images.read_header(path)

    monkeypatch.setattr(headers, "read_header", reading)
    folder(root).check_headers("train")
    assert read == []
    sixteen_bit_rgb(root / "images" / "train" / "img_0003.png")
    with pytest.raises(InputError, match="More than 8 bits"):
        folder(root).check_headers("train")
    assert [path.name for path in read] == ["img_0003.png"]
    for memory in (root / "cache").rglob("*.json"):
        memory.write_text('{"x": [')
    with pytest.raises(InputError, match="More than 8 bits"):
        folder(root).check_headers("train")


def test_a_lower_limit_of_pixels_holds_for_headers_that_are_remembered(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    folder(root).check_headers("train")
    monkeypatch.setenv("CONTEXTZOO_MAX_PIXELS", "100")
    with pytest.raises(InputError, match=r"Too many pixels .* the limit is 100"):
        folder(root).check_headers("train")


def test_prediction_names_what_it_cannot_read_and_goes_on(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, deep = (root / "images" / "val" / f"img_000{number}.png" for number in (2, 5))
    truncate(bad)
    sixteen_bit_rgb(deep)
    module = Folder(root, num_workers=0, predict_folder=root / "images" / "val", val_batch_size=4)
    names = [name for batch in module.predict_dataloader() for name in batch.names]
    assert names == [f"img_000{number}.png" for number in (0, 1, 3, 4, 6, 7)]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(bad), str(deep)]
    assert module.faults == lines


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}], ids=["raw", "lzw"])
def test_a_prediction_has_the_size_of_the_upright_tiff(tmp_path: Path, options: dict[str, str]) -> None:
    for orientation in range(1, 9):
        noise(size=(40, 30)).save(tmp_path / f"{orientation}.tif", tiffinfo={0x0112: orientation}, **options)
    module = Folder(tmp_path, classes=["a"], num_workers=0, predict_folder=tmp_path, image_size=(8, 8))
    sizes = [batch.sizes[0] for batch in module.predict_dataloader()]
    assert sizes == [(30, 40)] * 4 + [(40, 30)] * 4


def test_stats_name_what_they_cannot_read_and_go_on(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    truncate(root / "masks" / "train" / "img_0001.png")
    (root / "images" / "train" / "img_0002.png").write_bytes(b"")
    assert cli.main(["data", "stats", "--data", "Folder", f"--data.root={root}"]) == 1
    said = capsys.readouterr()
    assert [line.split("/")[-1][:12] for line in said.err.splitlines()[:2]] == ["img_0001.png", "img_0002.png"]
    assert said.err.splitlines()[2] == "2 files left out (contextzoo data check)"
    assert "image sizes: 16x12 (7)" in said.out


def test_a_root_that_has_only_the_test_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    camvid(tmp_path)
    for kind in ("", "annot"):
        (tmp_path / f"val{kind}").rename(tmp_path / f"test{kind}")
        shutil.rmtree(tmp_path / f"train{kind}")
    module = CamVid(tmp_path, test_split="val")
    module.fall_back_to_own_test_split()
    module.setup("test")
    assert len(module.dataset("test")) == 3
    assert capsys.readouterr().err == f"{tmp_path} has no val: tested on test\n"
