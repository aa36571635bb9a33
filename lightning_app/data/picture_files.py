"""What a picture's file is by its first bytes, and what it says of itself before anything is decoded."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from PIL import Image, features

from lightning_app.data.bad_file import AGAIN, BadFile
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

ORIENTATION: Final = 0x0112

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


def format_of(path: Path, head: bytes) -> str:
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


def header_of(image: Image.Image, file: BinaryIO) -> Header:
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
