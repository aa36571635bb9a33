"""One photo in two places: by its pixels, or by what of it survives another encoding or size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE: Final = 16  # of the thumbnail, in cells
NEAR: Final = 3  # grey levels by which no cell of a photo saved twice differs; its mean by less


@dataclass(frozen=True)
class Print:
    """What tells a photo again.

    Args:
        digest: of its pixels.
        thumbnail: mean colours of its cells. Shape: (SIDE * SIDE * 3,).
    """

    name: str
    digest: bytes
    thumbnail: NDArray[np.int16]

    @classmethod
    def of(cls, name: str, pixels: NDArray[np.uint8]) -> "Print":
        """The print of an RGB image. Shape: pixels (H, W, 3)."""
        digest = blake2b(pixels.tobytes(), digest_size=16, key=str(pixels.shape).encode()).digest()
        small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX)
        return cls(name, digest, np.asarray(small, dtype=np.int16).ravel())


def twins(here: Sequence[Print], there: Sequence[Print]) -> Iterator[tuple[Print, Print]]:
    """Pairs of one photo, the first of ``here`` and the second of ``there``."""
    if not here or not there:
        return
    ranked = sorted(there, key=lambda each: each.thumbnail.mean())
    means = np.array([each.thumbnail.mean() for each in ranked])
    thumbnails = np.stack([each.thumbnail for each in ranked])
    for each in here:
        if not np.ptp(each.thumbnail.reshape(-1, 3), axis=0).any():
            continue  # a blank picture is no photo
        mean = each.thumbnail.mean()
        low, high = np.searchsorted(means, (mean - NEAR, mean + NEAR))
        same = np.abs(thumbnails[low:high] - each.thumbnail).max(axis=1) <= NEAR
        if each.thumbnail.std() < NEAR:  # a plain surface is like any other of its colour
            same &= np.array([other.digest == each.digest for other in ranked[low:high]], dtype=bool)
        yield from ((each, ranked[low + place]) for place in np.flatnonzero(same))
