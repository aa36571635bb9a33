"""Class colours over a photograph, with a legend below it."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_app.tasks.legend import PAPER, Colours, strip

OPACITY = 0.55  # of a class's colour; its outline is opaque
BAND = 2**18  # pixels, in whole rows, that are blended at a time
MOST = 24  # classes in a legend


def overlay(image: NDArray[np.uint8], ids: NDArray[np.uint8], names: Sequence[str], palette: Colours) -> Image.Image:
    """The picture for people: colours over the image, and below it the classes that it holds, the largest first.

    Shape: image (H, W, 3), ids (H, W) -> at least W wide and higher than H, the image in the upper left corner.
    """
    height, width = ids.shape
    panel = legend(names, palette, class_shares(ids, len(names)), width)
    picture = Image.new("RGB", (panel.width, height + panel.height), PAPER)
    picture.paste(panel, (0, height))
    for rows, band in _blended(image, ids, palette):
        picture.paste(Image.fromarray(band), (0, rows.start))
    return picture


def blend(image: NDArray[np.uint8], ids: NDArray[np.uint8], palette: Colours, out: NDArray[np.uint8]) -> None:
    """Write the image in its classes' colours to ``out``.

    Shape: image (H, W, 3), ids (H, W), out (H, W, 3).
    """
    for rows, band in _blended(image, ids, palette):
        out[rows] = band


def class_shares(ids: NDArray[np.uint8], count: int) -> list[float]:
    """Share of the pixels of each of ``count`` classes."""
    pixels = sum((np.bincount(row, minlength=256) for row in ids), start=np.zeros(256, dtype=np.int64))
    return [float(share) for share in pixels[:count] / ids.size]


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.0f} %" if share >= 0.0095 else f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"


def legend(names: Sequence[str], palette: Colours, shares: Sequence[float], width: int) -> Image.Image:
    """A strip at least ``width`` wide that names the classes with a share above zero."""
    present = sorted((index for index, share in enumerate(shares) if share > 0), key=lambda index: -shares[index])
    texts = [f"{names[index]}  {percent(shares[index])}" for index in present[:MOST]]
    if len(present) > MOST:
        texts.append(f"and {len(present) - MOST} more")
    return strip(texts, [palette[index] for index in present[:MOST]], width)


def _blended(
    image: NDArray[np.uint8], ids: NDArray[np.uint8], palette: Colours
) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """The image in its classes' colours, some rows at a time."""
    colours = np.zeros((256, 3), dtype=np.float32)
    colours[: len(palette)] = palette
    height, width = ids.shape
    step = max(BAND // width, 1)
    for top in range(0, height, step):
        rows = slice(top, top + step)
        strength = np.where(_outlines(ids, rows), np.float32(1), np.float32(OPACITY))[..., None]
        band = image[rows] * (1 - strength) + colours[ids[rows]] * strength
        yield rows, band.round().astype(np.uint8)


def _outlines(ids: NDArray[np.uint8], rows: slice) -> NDArray[np.bool_]:
    """Pixels of these rows that differ from the one below or the one to the right."""
    strip = ids[rows.start : rows.stop + 1]
    edge = np.zeros(strip.shape, dtype=bool)
    edge[:-1] |= strip[1:] != strip[:-1]
    edge[:, :-1] |= strip[:, 1:] != strip[:, :-1]
    return edge[: rows.stop - rows.start]
