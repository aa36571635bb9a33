"""Objects on a photograph: outlines, names and scores."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lightning_app.data.facts import default_palette
from lightning_app.tasks.instance.found import Found
from lightning_app.tasks.legend import PAPER, Colours, strip
from lightning_app.tasks.report import Box, Drawing

OPACITY = 0.4  # of an object's colour; its outline is opaque
SHORTEST = 640  # pixels of the longer side of a picture for people; smaller photographs are shown larger
MOST = 24  # classes in a legend, and colours where objects of one class are told apart


def overlay(image: NDArray[np.uint8], found: Found, names: Sequence[str]) -> Image.Image:
    """The picture for people: each object in its class's colour, or in one of its own where there is one class.

    Names and scores stand where there is room; below, how many there are of each class.

    Shape: image (H, W, 3) -> that, at least SHORTEST long and enlarged by a whole number for that, with a strip below.
    """
    height, width = image.shape[:2]
    zoom = max(1, SHORTEST // max(height, width))
    picture = np.array(Image.fromarray(image).resize((width * zoom, height * zoom), Image.Resampling.BICUBIC))
    palette = default_palette(min(MOST, len(names)) if len(names) > 1 else MOST)
    order = np.argsort(found.scores, kind="stable")  # the best on top
    colours = [palette[(label if len(names) > 1 else place) % len(palette)] for place, label in enumerate(found.labels)]
    bitmaps = list(found.bitmaps())
    for place in order if bitmaps else ():
        _colour(picture, bitmaps[place], found.boxes[place], colours[place], zoom)
    shown = Image.fromarray(picture)
    for place in order:
        _label(shown, found, place, names, colours[place], zoom, framed=not bitmaps)
    return _with_legend(shown, found, names, palette)


def _colour(
    picture: NDArray[np.uint8], mask: NDArray[np.bool_], box: NDArray[np.float64], colour: tuple[int, ...], zoom: int
) -> None:
    """Blend a mask into its part of the picture, with its outline."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    inside = np.pad(mask[top:bottom, left:right].repeat(zoom, 0).repeat(zoom, 1), 1)
    width = max(1, round(max(picture.shape) / 500))
    core = inside.copy()
    for _ in range(width):
        core[1:-1, 1:-1] &= core[:-2, 1:-1] & core[2:, 1:-1] & core[1:-1, :-2] & core[1:-1, 2:]
    inside, core = inside[1:-1, 1:-1], core[1:-1, 1:-1]
    part = picture[top * zoom : bottom * zoom, left * zoom : right * zoom]
    strength = np.where(core, OPACITY, 1.0)[..., None]
    blended = part * (1 - strength) + np.array(colour) * strength
    part[inside] = blended[inside].round().astype(np.uint8)


def _label(
    picture: Image.Image,
    found: Found,
    place: int,
    names: Sequence[str],
    colour: tuple[int, int, int],
    zoom: int,
    *,
    framed: bool,
) -> None:
    """Name and score in the corner of an object's box, or what of it has room; ``framed``: the box itself too."""
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = (found.boxes[place] * zoom).tolist()
    if framed and right > left and bottom > top:
        draw.rectangle((left, top, right, bottom), outline=colour, width=max(1, max(picture.size) // 500))
    size = min(max(max(picture.size) // 64, 11), 96)
    font = ImageFont.load_default(size)
    score = f"{found.scores[place]:.2f}"
    for text in (f"{names[found.labels[place]]} {score}", score):
        if font.getlength(text) + size / 2 <= 1.5 * (right - left):
            break
    else:
        return
    top = max(top - 1.3 * size, 0)
    box = (left, top, left + font.getlength(text) + size / 2, top + 1.3 * size)
    dark = sum(part * weight for part, weight in zip(colour, (0.299, 0.587, 0.114), strict=True)) < 150
    draw.rectangle(box, fill=colour)
    draw.text((left + size / 4, top + 0.65 * size), text, (255, 255, 255) if dark else (0, 0, 0), font, anchor="lm")


def _with_legend(picture: Image.Image, found: Found, names: Sequence[str], palette: Colours) -> Image.Image:
    """The picture above a strip that counts the objects of each class, the most first."""
    counts = Counter(found.labels.tolist()).most_common()
    texts = [f"{names[label]}  {count}" for label, count in counts[:MOST]] or ["nothing found"]
    if len(counts) > MOST:
        texts.append(f"and {len(counts) - MOST} more")
    colours = [palette[label % len(palette)] for label, _ in counts[:MOST]] if len(names) > 1 else []
    panel = strip(texts, colours, picture.width)
    whole = Image.new("RGB", (panel.width, picture.height + panel.height), PAPER)
    whole.paste(panel, (0, picture.height))
    whole.paste(picture, (0, 0))
    return whole


@dataclass(frozen=True)
class InstanceDrawing(Drawing):
    """Objects found in a picture, with the annotated ones in ``masks`` and ``boxes`` where they are known."""

    found: Found | None = None
    names: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        name: str,
        photograph: NDArray[np.uint8],
        found: Found,
        truth: Found | None,
        names: Sequence[str],
        results: Sequence[Any] = (),
    ) -> "InstanceDrawing":
        """Of one image; in its maps 0 is the background and 1 the first class."""
        sides = {"prediction": found} | ({} if truth is None else {"ground_truth": truth})
        return cls(
            name,
            photograph,
            {side: _classes(objects) for side, objects in sides.items() if objects.masks is not None},
            {0: "background", **dict(enumerate(names, 1))},
            boxes={side: _boxes(objects) for side, objects in sides.items()},
            results=results,
            found=found,
            names=names,
        )

    def overlay(self) -> Image.Image:
        assert self.found is not None
        return overlay(self.photograph, self.found, self.names)


def _classes(found: Found) -> NDArray[np.uint8]:
    """The class of each pixel, counted from 1; of objects that overlap the best one's. Shape: (H, W)."""
    ids = np.zeros(found.size, dtype=np.uint8)
    bitmaps = list(found.bitmaps())
    for place in np.argsort(found.scores, kind="stable"):
        ids[bitmaps[place]] = min(found.labels[place] + 1, 255)
    return ids


def _boxes(found: Found) -> list[Box]:
    objects = zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    return [Box((box[0], box[1], box[2], box[3]), label + 1, score) for box, label, score in objects]
