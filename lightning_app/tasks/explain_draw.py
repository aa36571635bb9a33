"""The picture of an explanation: the photograph with its point, and each map over it, with a line below each."""

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lightning_app.tasks.legend import INK, PAPER

if TYPE_CHECKING:
    from lightning_app.tasks.explain import Explanation, View

SIDES: Final = (280, 560)  # pixels: the least and the most that a panel is wide
DIM: Final = 0.4  # of the photograph's brightness under a map
HOT: Final = ((255, 90, 0), (255, 245, 190))  # half way and at the most
COLD: Final = ((0, 130, 255), (200, 240, 255))  # the same of negative weights
MARK: Final = (0, 230, 118)


def draw(explanation: "Explanation", columns: int) -> Image.Image:
    """All panels side by side, in rows of ``columns``."""
    height, width = explanation.image.shape[:2]
    side = min(max(width, SIDES[0]), SIDES[1])
    size = (side, max(round(height * side / width), 1))
    photograph = Image.fromarray(explanation.image).resize(size, Image.Resampling.LANCZOS)
    x, y = explanation.at
    panels = [(photograph, f"{x},{y}: {explanation.answer}")]
    panels += [(over(photograph, view, (width, height)), view.line) for view in explanation.views]
    font = ImageFont.load_default(max(side // 28, 12))
    captions = [_wrapped(text, font, side - 8) for _, text in panels]
    line, gap = round(1.35 * font.size), 8
    strip = max(map(len, captions)) * line + gap
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    step = (size[0] + gap, size[1] + strip + gap)
    picture = Image.new("RGB", (columns * step[0] + gap, rows * step[1] + gap), PAPER)
    pen = ImageDraw.Draw(picture)
    for number, ((panel, _), caption) in enumerate(zip(panels, captions, strict=True)):
        left, top = gap + number % columns * step[0], gap + number // columns * step[1]
        mark(panel, ((x + 0.5) * size[0] / width, (y + 0.5) * size[1] / height))
        picture.paste(panel, (left, top))
        for place, text in enumerate(caption):
            pen.text((left + 2, top + size[1] + gap // 2 + place * line), text, INK, font)
    return picture


def heat(view: "View", size: tuple[int, int], whole: tuple[int, int]) -> NDArray[np.float32]:
    """A view on a picture of ``size`` that shows a photograph of ``whole``, each (width, height): -1..1, nan outside.

    0 is no weight, 1 the most; a gate goes from its least to its most. Square roots, so that what is faint shows too.
    """
    weights = view.weights
    if view.kind == "gate":
        weights = weights - weights.min()
    most = np.abs(weights).max() or 1
    shown = np.sign(weights) * np.sqrt(np.abs(weights) / most)
    rows, columns = weights.shape
    x = ((np.arange(size[0]) + 0.5) * whole[0] / size[0] - view.box.left) / (view.box.right - view.box.left) * columns
    y = ((np.arange(size[1]) + 0.5) * whole[1] / size[1] - view.box.top) / (view.box.bottom - view.box.top) * rows
    inside = ((y >= 0) & (y < rows))[:, None] & ((x >= 0) & (x < columns))
    if columns > size[0] or rows > size[1]:  # shrunk: of several cells the strongest shows
        shown = _strongest(shown, -(-rows // size[1]), -(-columns // size[0]))
        y, x = y * shown.shape[0] / rows, x * shown.shape[1] / columns
    rows, columns = shown.shape
    picked = shown[np.clip(y, 0, rows - 1).astype(int)[:, None], np.clip(x, 0, columns - 1).astype(int)]
    return np.where(inside, picked, np.float32("nan")).astype(np.float32)


def _strongest(values: NDArray[np.float32], down: int, across: int) -> NDArray[np.float32]:
    """Of each cell of down x across values the one furthest from 0."""
    rows, columns = (-(-side // step) for side, step in zip(values.shape, (down, across), strict=True))
    padded = np.zeros((rows * down, columns * across), dtype=np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    cells = padded.reshape(rows, down, columns, across).swapaxes(1, 2).reshape(rows, columns, -1)
    chosen = np.abs(cells).argmax(-1)
    strongest: NDArray[np.float32] = np.take_along_axis(cells, chosen[..., None], -1)[..., 0]
    return strongest


def over(photograph: Image.Image, view: "View", whole: tuple[int, int]) -> Image.Image:
    """A map in hot colours, negative weights in cold ones, over the photograph in grey."""
    grey = np.asarray(photograph.convert("L"), dtype=np.float32)[..., None] * DIM
    values = heat(view, photograph.size, whole)
    outside = np.isnan(values)
    strength = np.abs(np.nan_to_num(values))[..., None]
    cold = np.nan_to_num(values)[..., None] < 0
    middle, end = (np.where(cold, COLD[i], HOT[i]).astype(np.float32) for i in range(2))
    colour = middle + (end - middle) * np.clip(2 * strength - 1, 0, 1)
    opacity = np.clip(2 * strength, 0, 1) * 0.85
    blended = grey * (1 - opacity) + colour * opacity
    blended[outside] = grey[outside] / 2
    return Image.fromarray(blended.round().astype(np.uint8))


def mark(panel: Image.Image, at: tuple[float, float]) -> None:
    """A ring around the point, which leaves what it rings to be seen."""
    pen, radius = ImageDraw.Draw(panel), max(panel.width // 60, 5)
    for colour, more, width in (((0, 0, 0), 1, 4), (MARK, 0, 2)):
        reach = radius + more
        pen.ellipse((at[0] - reach, at[1] - reach, at[0] + reach, at[1] + reach), outline=colour, width=width)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The text in lines of at most ``width`` pixels, as far as its words allow."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
