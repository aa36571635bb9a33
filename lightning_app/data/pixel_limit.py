"""The most pixels of a picture that any verb reads."""

import os
from pathlib import Path
from typing import Final

from lightning_app.data.bad_file import BadFile
from lightning_app.util.errors import InputError

MAX_PIXELS: Final = 10**9  # 3 GB of memory as RGB, and 4 in Pillow meanwhile

LIMIT_VARIABLE: Final = "CONTEXTZOO_MAX_PIXELS"


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
