"""A strip of coloured swatches with words, which pictures for people have below them."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

Colours = Sequence[tuple[int, int, int]]

PAPER, INK, FRAME = (255, 255, 255), (40, 40, 40), (150, 150, 150)


def strip(texts: Sequence[str], colours: Colours, width: int) -> Image.Image:
    """At least ``width`` wide; texts beyond the colours have no swatch."""
    size = min(max(width // 64, 12), 192)
    font = ImageFont.load_default(size)
    swatch, gap = round(1.1 * size), round(0.6 * size)
    column = swatch + gap // 2 + max(round(font.getlength(text)) for text in texts) + 2 * gap
    columns = min(max((width - gap) // column, 1), len(texts))
    rows = -(-len(texts) // columns)
    step = round(1.7 * size)
    picture = Image.new("RGB", (max(width, gap + columns * column), rows * step + 2 * gap), PAPER)
    draw = ImageDraw.Draw(picture)
    for place, text in enumerate(texts):
        left, top = gap + place // rows * column, gap + place % rows * step
        middle = top + step // 2
        if place < len(colours):
            box = (left, middle - swatch // 2, left + swatch, middle - swatch // 2 + swatch)
            draw.rounded_rectangle(box, radius=size // 5, fill=colours[place], outline=FRAME)
        draw.text((left + swatch + gap // 2, middle), text, INK, font, anchor="lm")
    return picture
