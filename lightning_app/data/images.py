"""Pictures from disk, or an error that names the file, what is wrong with it and the fix."""

import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

from lightning_app.data.decoders import no_limit_of_pillow, silent_libtiff
from lightning_app.util.errors import InputError
from lightning_app.util.extras import install

SUFFIXES: Final = frozenset(
    {
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".tif",
        ".tiff",
        ".bmp",
        ".dib",
        ".webp",
        ".gif",
        ".tga",
    }
    | {".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx"}
)
MAX_PIXELS: Final = 10**9  # 3 GB of memory as RGB, and 4 in Pillow meanwhile
LIMIT_VARIABLE: Final = "CONTEXTZOO_MAX_PIXELS"
BAND: Final = 512  # rows that are copied at a time
ORIENTATION: Final = 0x0112
AGAIN: Final = "Get the file again."

# by what a file begins with, since names lie; what Pillow could read besides (EPS by a program of its own) is not tried
MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    *((b"P%d" % number, "PPM") for number in range(1, 7)),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
)

warnings.filterwarnings("ignore", module=r"PIL\.")  # of harmless oddities in a file, without the file's name


class BadFile(InputError):
    """One file that cannot be used; ``problems`` are worded so that files with the same one can be counted together."""

    def __init__(self, path: Path, problems: tuple[str, ...], fix: str, detail: str = "") -> None:
        super().__init__(path, problems, fix, detail)  # args, so that it survives the way back from a worker process
        self.path, self.problems, self.fix, self.detail = path, problems, fix, detail

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.path}: {'; '.join(self.problems)}{detail}. {self.fix}"


@dataclass(frozen=True)
class Header:
    """What a picture's file says of it before anything is decoded.

    Args:
        size: (H, W) of the upright picture.
        format, mode: in Pillow's words.
        bits: of one channel.
        orientation: by EXIF, 1 to 8.
        alpha: whether it has transparent parts.
    """

    size: tuple[int, int]
    format: str
    mode: str
    bits: int
    orientation: int
    alpha: bool

    @property
    def lossy(self) -> bool:
        """Whether the format changes the values that were saved."""
        return self.format in ("JPEG", "MPO")


def read_header(path: Path) -> Header:
    """The header alone.

    Raises:
        BadFile: no file, no picture, or one that is too large.
    """
    with _opened(path) as (_, header):
        return header


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) as ``read_image`` gives it, from the header alone."""
    return read_header(path).size


@contextmanager
def upright(path: Path) -> Iterator[tuple[Image.Image, Header]]:
    """The decoded picture, turned as its EXIF orientation says. Whatever fails in the block is the file's fault.

    Raises:
        BadFile: it cannot be read.
    """
    with _opened(path) as (image, header):
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        yield image, header


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB, upright; greyscale is repeated, a palette resolved, an alpha channel dropped. Shape: (H, W, 3).

    Raises:
        BadFile: unreadable, or 16 bits and more (which range matters is not ours to guess).
    """
    with upright(path) as (image, header):
        require_8_bit(header, path)
        return _rgb(image)


def rgb_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """The same of an image that is open already.

    Raises:
        InputError: more than 8 bits a channel.
    """
    if image.mode[0] in "IF":
        raise InputError(f"A picture of mode {image.mode}: scale the values you need to 0..255 and make it 8-bit")
    return _rgb(ImageOps.exif_transpose(image))


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode != "RGB":
        image = image.convert("RGB")
    width, height = image.size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, BAND):  # of the whole, np.array makes two more copies on its way
        bottom = min(top + BAND, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels


def require_8_bit(header: Header, path: Path) -> None:
    """Raise where an image has deeper channels than a network is trained on."""
    if header.bits > 8:
        raise BadFile(path, ("More than 8 bits a channel",), "Scale the values you need to 0..255 and save as 8-bit.")


def require_same_size(image: tuple[int, ...], mask: tuple[int, ...], path: Path) -> None:
    """Raise unless an image and its mask, the file ``path``, have one (H, W)."""
    if image != mask:
        detail = f"{image[1]}x{image[0]} vs {mask[1]}x{mask[0]}"
        raise BadFile(path, ("Sizes differ",), "Export the mask at the size of the upright image.", detail)


def left_out(paths: Iterable[Path]) -> str:
    """One line that counts the files among ``paths`` by their suffixes; empty where there are none."""
    endings = Counter(path.suffix.lower() or path.name for path in paths if path.is_file())
    number = endings.total()
    kinds = ", ".join(f"{ending} {count}" for ending, count in endings.most_common(5))
    more = ", ..." if len(endings) > 5 else ""
    return f"{number} file{'s' * (number > 1)} of other types left out ({kinds}{more})" if number else ""


@contextmanager
def regular_file(path: Path) -> Iterator[BinaryIO]:
    """The open file; a pipe or a device, whose reading may never end, is an error like a missing file.

    Raises:
        BadFile: there is no such file, or it is of another kind.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "A folder" if stat.S_ISDIR(mode) else "A pipe, socket or device"
            raise BadFile(path, (f"{what}, not a file",), "Put a file there or remove it.")
        file = path.open("rb")
    except FileNotFoundError:
        if path.is_symlink():
            raise BadFile(path, ("A link to nothing",), "Restore what it points to or remove it.") from None
        raise BadFile(path, ("No such file",), "Restore it or take it off the split's list.") from None
    except PermissionError:
        raise BadFile(path, ("No permission to read it",), "Give it (chmod) or remove the file.") from None
    except OSError as error:  # such as a loop of links
        raise BadFile(path, ("Cannot be opened",), AGAIN, error.strerror or str(error)) from None
    with file:
        yield file


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Image.Image, Header]]:
    """The picture with its header read and nothing decoded; whatever a decoder raises becomes a BadFile."""
    size = ""
    try:
        with regular_file(path) as file, no_limit_of_pillow:
            kind = _format(path, file.read(64))
            with silent_libtiff if kind == "TIFF" else nullcontext(), Image.open(file, formats=(kind,)) as image:
                size = "{}x{}".format(*image.size)
                _require_sensible_size(image, path, os.fstat(file.fileno()).st_size)
                yield image, _header(image, file)
    except InputError:
        raise
    except MemoryError:
        fix = "Cut it into tiles, or get the file again if it should be smaller."
        raise BadFile(path, ("More than fits into memory",), fix, size) from None
    except UnidentifiedImageError:
        raise BadFile(path, ("Unreadable",), AGAIN, "its header is damaged, or says 0 pixels") from None
    except Exception as error:  # decoders let all kinds through, struct.error and OverflowError among them
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadFile(path, ("Unreadable",), AGAIN, reason) from error


def _format(path: Path, head: bytes) -> str:
    """Pillow's name of the format that a file begins like.

    Raises:
        BadFile: of none, or of one that needs another package.
    """
    if not head:
        raise BadFile(path, ("Unreadable",), AGAIN, "the file is empty")
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _iso_format(path, head)
    if path.suffix.lower() == ".tga":  # which begins like nothing in particular
        return "TGA"
    raise BadFile(path, ("Unreadable",), AGAIN, "not a picture of a known format")


def _iso_format(path: Path, head: bytes) -> str:
    """AVIF or HEIF, which share their container."""
    if any(brand in head[8:] for brand in (b"avif", b"avis")):
        if not features.check("avif"):
            raise BadFile(path, ("AVIF needs Pillow 11.3 or newer",), "pip install -U pillow")
        return "AVIF"
    if any(brand in head[8:] for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")):
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise BadFile(path, ("HEIC needs pillow-heif",), install("heic")) from None
        register_heif_opener()
        return "HEIF"
    raise BadFile(path, ("Unreadable",), AGAIN, "not a picture of a known format")


def _header(image: Image.Image, file: BinaryIO) -> Header:
    orientation = _orientation(image, file)
    width, height = image.size
    if image.format == "TIFF":  # Pillow's size is turned already or not, depending on its version
        width, height = image.tag_v2[256], image.tag_v2[257]
    return Header(
        size=(width, height) if orientation >= 5 else (height, width),
        format=image.format or "",
        mode=image.mode,
        bits=_bits(image, file),
        orientation=orientation,
        alpha=image.mode in ("LA", "RGBA", "PA", "La", "RGBa") or "transparency" in image.info,
    )


def _bits(image: Image.Image, file: BinaryIO) -> int:
    """Bits of one channel in the file; Pillow's modes do not tell, since it reads 16-bit RGB as 8-bit."""
    number = file.fileno()
    if image.format == "PNG":
        return os.pread(number, 1, 24)[0]
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(258, (1,))))
    if image.format == "JPEG2000":
        head = os.pread(number, 1 << 16, 0)
        sizes = head.find(b"\xff\x4f\xff\x51")
        return (head[sizes + 42] & 0x7F) + 1 if 0 <= sizes < len(head) - 42 else 8
    if image.format == "PPM":
        arguments = image.tile[0][3]
        largest = arguments[-1] if isinstance(arguments, tuple) else arguments
        if isinstance(largest, int) and largest > 255:
            return 16
    return 32 if image.mode[0] == "F" else 16 if image.mode[0] == "I" else 8


def _orientation(image: Image.Image, file: BinaryIO) -> int:
    """1 to 8, as ``PIL.ImageOps.exif_transpose`` will find it."""
    if image.format == "PNG" and not _metadata_follows(file.fileno()):
        exif = Image.Image.getexif(image)  # PNG's own would decode the whole picture to look behind it
    else:
        exif = image.getexif()
    orientation = exif.get(ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def _metadata_follows(number: int) -> bool:
    """Whether a PNG has chunks behind its pixels that may hold an orientation."""
    place, seen = 8, False
    while len(head := os.pread(number, 8, place)) == 8:
        kind = head[4:]
        if seen and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
            return True
        seen = seen or kind == b"IDAT"
        place += 12 + int.from_bytes(head[:4], "big")
    return False


def _require_sensible_size(image: Image.Image, path: Path, size: int) -> None:
    width, height = image.size
    if image.tile and image.tile[0][0] == "raw" and height * width > 8 * size:  # not even a bit for each
        raise BadFile(path, ("Corrupt header",), AGAIN, f"{width}x{height} pixels in {size} bytes")
    require_few_enough_pixels(image.size, path)


def require_few_enough_pixels(size: tuple[int, int], path: Path) -> None:
    """Raise a BadFile where (width, height) are more pixels than are read."""
    width, height = size
    if height * width > (limit := max_pixels()):
        fix = f"Cut it into tiles, or set {LIMIT_VARIABLE} where the memory suffices (8 bytes a pixel)."
        raise BadFile(path, ("Too many pixels",), fix, f"{width}x{height}, and the limit is {limit}")


def max_pixels() -> int:
    """The most pixels of a picture that is read, by any verb."""
    text = os.environ.get(LIMIT_VARIABLE) or str(MAX_PIXELS)
    try:
        limit = int(float(text))  # 5e8 as well
    except (ValueError, OverflowError):
        limit = 0
    if limit < 1:
        raise InputError(f"{LIMIT_VARIABLE} is {text}: give a number of pixels")
    return limit
