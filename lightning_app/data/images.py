"""Images and masks from disk, or an error that names the file, what is wrong with it and the fix."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lightning_app.errors import InputError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".gif"})
UNLISTED = -1
BAND = 512  # rows that are copied at a time


class BadFile(InputError):
    """One file that cannot be used; ``problems`` are worded so that files with the same one can be counted together."""

    def __init__(self, path: Path, problems: tuple[str, ...], fix: str, detail: str = "") -> None:
        super().__init__(path, problems, fix, detail)  # args, so that it survives the way back from a worker process
        self.path, self.problems, self.fix, self.detail = path, problems, fix, detail

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.path}: {'; '.join(self.problems)}{detail}. {self.fix}"


def _open(path: Path) -> Image.Image:
    """Decoded and turned upright by its EXIF orientation."""
    try:
        with Image.open(path) as image:
            # Pillow reads 16-bit RGB as 8-bit; the way the file is packed tells
            deep = image.mode[0] in "IF" or any("16" in str(tile[3]) for tile in image.tile)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            image.info["deep"] = deep
            return image
    except FileNotFoundError:
        raise BadFile(path, ("No such file",), "Restore it or take it off the split's list.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFile(path, ("Unreadable",), "Get the file again.", str(error)) from error


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB, upright; greyscale is repeated, a palette resolved, an alpha channel dropped. Shape: (H, W, 3).

    Raises:
        BadFile: missing, truncated, or 16 bits and more (which range matters is not ours to guess).
    """
    image = _open(path)
    if image.info["deep"]:
        raise BadFile(path, ("More than 8 bits a channel",), "Scale the values you need to 0..255 and save as 8-bit.")
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


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) as :func:`read_image` gives it, from the header alone."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            sideways = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 are turned by 90 degrees
            return (width, height) if sideways else (height, width)
    except (OSError, SyntaxError) as error:
        raise BadFile(path, ("Unreadable",), "Get the file again.", str(error)) from error


def require_same_size(image: tuple[int, ...], mask: tuple[int, ...], path: Path) -> None:
    """Raise unless an image and its mask, the file ``path``, have one (H, W)."""
    if image != mask:
        detail = f"{image[1]}x{image[0]} vs {mask[1]}x{mask[0]}"
        raise BadFile(path, ("Sizes differ",), "Export the mask at the size of the upright image.", detail)


class MaskReader:
    """Mask file -> train ids; whatever ``label_map`` does not list is an error.

    Args:
        label_map: raw value -> train id; with ``colour_coded`` masks a raw value is 0xRRGGBB.
    """

    def __init__(self, label_map: Mapping[int, int], *, colour_coded: bool = False) -> None:
        self.colour_coded = colour_coded
        self._table = np.full(max(label_map) + 2, UNLISTED, dtype=np.int16)  # its last entry stands for all beyond
        self._table[list(label_map)] = list(label_map.values())

    def raw(self, path: Path) -> NDArray[np.uint32]:
        """The values as they stand in the file. Shape: (H, W)."""
        if path.suffix == ".mat":
            return _read_mat(path)
        image = _open(path)
        if self.colour_coded:
            red, green, blue = np.moveaxis(np.array(image.convert("RGB"), dtype=np.uint32), -1, 0)
            packed: NDArray[np.uint32] = red << 16 | green << 8 | blue
            return packed
        values = np.array(image)
        if values.ndim == 3 and image.mode in ("RGB", "RGBA", "LA"):
            values = values if image.mode == "LA" else values[..., :3]
            if image.mode != "LA" and (values != values[..., :1]).any():
                fix = 'Give its colours in label_map ({"#rrggbb": class}).'
                raise BadFile(path, ("Colour mask where label_map lists numbers",), fix)
            values = values[..., 0]
        if values.ndim != 2 or values.dtype.kind not in "bui":
            raise BadFile(path, (f"Not a mask (mode {image.mode})",), "Save it as one channel of whole numbers.")
        return values.astype(np.uint32)

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Train ids. Shape: (H, W)."""
        raw = self.raw(path)
        ids = self._table[np.minimum(raw, len(self._table) - 1)]
        if ids.min(initial=0) == UNLISTED:
            values = [f"#{v:06x}" if self.colour_coded else str(v) for v in np.unique(raw[ids == UNLISTED])]
            problems = tuple(f"Raw value {value}: in no class" for value in values[:10])
            raise BadFile(path, problems, "Add it to label_map (255 to ignore it) or correct the mask.")
        return ids.astype(np.uint8)


def _read_mat(path: Path) -> NDArray[np.uint32]:
    try:
        from scipy.io import loadmat  # type: ignore[import-untyped]
    except ImportError:
        raise BadFile(path, ("Reading .mat files needs scipy",), "pip install scipy") from None
    try:
        return np.asarray(loadmat(path)["S"], dtype=np.uint32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFile(path, ("Unreadable",), "Get the file again.", str(error)) from error
