"""Pictures from disk, or an error that names the file, what is wrong with it and the fix."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lightning_app.data.bad_file import AGAIN, BadFile, regular_file
from lightning_app.data.decoders import no_limit_of_pillow, silent_libtiff
from lightning_app.data.picture_files import Header, format_of, header_of
from lightning_app.data.pixel_limit import require_few_enough_pixels
from lightning_app.util.errors import InputError

BAND: Final = 512  # rows that are copied at a time


warnings.filterwarnings("ignore", module=r"PIL\.")  # of harmless oddities in a file, without the file's name


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
def _opened(path: Path) -> Iterator[tuple[Image.Image, Header]]:
    """The picture with its header read and nothing decoded; whatever a decoder raises becomes a BadFile."""
    size = ""
    try:
        with regular_file(path) as file, no_limit_of_pillow:
            kind = format_of(path, file.read(64))
            with silent_libtiff if kind == "TIFF" else nullcontext(), Image.open(file, formats=(kind,)) as image:
                size = "{}x{}".format(*image.size)
                _require_sensible_size(image, path, os.fstat(file.fileno()).st_size)
                yield image, header_of(image, file)
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


def _require_sensible_size(image: Image.Image, path: Path, size: int) -> None:
    width, height = image.size
    if image.tile and image.tile[0][0] == "raw" and height * width > 8 * size:  # not even a bit for each
        raise BadFile(path, ("Corrupt header",), AGAIN, f"{width}x{height} pixels in {size} bytes")
    require_few_enough_pixels(image.size, path)
