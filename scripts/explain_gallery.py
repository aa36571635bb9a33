"""python scripts/explain_gallery.py: draws both pictures of docs/explain.md and prints its table.

explain.jpg is of own weights of ContextProbe, whose images are drawn on the spot: a solid square's class is the texture
of the one square of its colour. A head that has learned it must look from the one to the other, so the picture can be
checked. explain_photo.jpg is of a photograph, by the same heads on one frozen backbone, trained on CamVid.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import contextzoo as cz
from lightning_app.data.semantic.context_probe import CELL, ContextProbe
from lightning_app.tasks.explain import Explanation, View, explain

DOCS = Path(__file__).parents[1] / "docs"
HEADS = (
    "nonlocal_net",
    "dnlnet",
    "danet",
    "psanet",
    "ann",
    "isanet",
    "efficient_attention",
    "ocrnet",
    "ccnet",
    "emanet",
)
ID = "{}_patchify_context-probe-64x64_960"
PHOTOGRAPH, AT = DOCS / "summer_palace.jpg", (200, 145)
PHOTOGRAPH_ID = "{}_tf_efficientnet_lite0_camvid-240x320_180"
IMAGES = 6  # of the validation split, all of whose queries are asked
SIDE, COLUMNS, GAP, LINE = 208, 6, 10, 19


def main() -> None:
    probe().save(DOCS / "explain.jpg", quality=92)
    draw([explain(cz.load(PHOTOGRAPH_ID.format(head)), PHOTOGRAPH, AT) for head in HEADS]).save(
        DOCS / "explain_photo.jpg", quality=90
    )


def probe() -> Image.Image:
    """What the heads look at in ContextProbe; prints how much of it lies where the answer is."""
    data = ContextProbe(**cz.load(ID.format("fcn")).info.data["init_args"])
    scenes = data.make_dataset("val")
    chosen: list[Explanation] = []
    print(
        "| head | map | its weight on the square that answers | answers that are right |\n|---|---|---|---|", flush=True
    )
    for head in HEADS:
        model = cz.load(ID.format(head))
        on_cue: list[float] = []
        right: list[bool] = []
        for index in range(IMAGES):
            image = scenes.images[index].permute(1, 2, 0).numpy()
            for (x, y), cue in queries(image, scenes.masks[index].numpy()):
                found = explain(model, image, (x, y))
                on_cue.append(weight(main_view(found), cue))
                right.append(found.answer.startswith(f"{data.class_names[int(scenes.masks[index][y, x])]},"))
                if (index, len(right)) == (0, 1):
                    chosen.append(found)
        share, correct = 100 * np.mean(on_cue), 100 * np.mean(right)
        print(f"| {head} | {main_view(chosen[-1]).name} | {share:.0f} % | {correct:.0f} % |", flush=True)
    print(f"\n{len(right)} queries; a cell's share of an even map is {100 / data.layout.cells**2:.1f} %.")
    return draw(chosen)


def main_view(found: Explanation) -> View:
    """The way through all parts or passes where there are several maps."""
    return next((view for view in found.views if "through" in view.name), found.views[0])


def queries(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Of each query its middle in pixels, x and y, and the row and column of its cue's cell."""
    cells = len(image) // CELL
    tiles = image.reshape(cells, CELL, cells, CELL, 3).swapaxes(1, 2).reshape(cells, cells, -1, 3)
    colours = tiles.max(axis=2)  # of a cue, the colour that its texture shows
    cues = {tuple(colours[r, c]): (r, c) for r, c in np.ndindex(cells, cells) if not tiles[r, c].any(axis=1).all()}
    asked = [place for place in np.ndindex(cells, cells) if mask[place[0] * CELL, place[1] * CELL]]
    return [((c * CELL + CELL // 2, r * CELL + CELL // 2), cues[tuple(colours[r, c])]) for r, c in asked]


def weight(view: View, cell: tuple[int, int]) -> float:
    """The share of a map that lies on one cell."""
    rows, columns = view.weights.shape
    down, across = (round((view.box.bottom - view.box.top) / CELL), round((view.box.right - view.box.left) / CELL))
    fine = np.kron(view.weights, np.ones((down, across)))  # a position spreads evenly over what it covers
    return float(fine.reshape(down, rows, across, columns).sum((1, 3))[cell] / fine.sum())


def draw(found: list[Explanation]) -> Image.Image:
    """A panel for each head, after one of the input."""
    panels: list[tuple[str, Any]] = [("the input, and the pixel", None), *zip(HEADS, found, strict=True)]
    rows = -(-len(panels) // COLUMNS)
    height = size(found[0])[1]
    step = (SIDE + GAP, height + 3 * LINE + GAP)
    picture = Image.new("RGB", (COLUMNS * step[0] + GAP, rows * step[1] + GAP), (255, 255, 255))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for number, (name, explanation) in enumerate(panels):
        left, top = GAP + number % COLUMNS * step[0], GAP + number // COLUMNS * step[1]
        views = [] if explanation is None else [main_view(explanation)]
        picture.paste(panel(found[0] if explanation is None else explanation, views), (left, top))
        pen.text((left, top + height + 2), name, (40, 40, 40), font)
        if explanation is not None:
            for line, text in enumerate((views[0].name, explanation.answer), 1):
                pen.text((left, top + height + 2 + line * LINE), text, (110, 110, 110), font)
    return picture


def size(found: Explanation) -> tuple[int, int]:
    """Width and height of a panel."""
    height, width = found.image.shape[:2]
    return SIDE, round(SIDE * height / width)


def panel(found: Explanation, views: list[View]) -> Image.Image:
    """The input, or the one map over it, without words."""
    from lightning_app.tasks.explain_draw import mark, over

    height, width = found.image.shape[:2]
    sharp = Image.Resampling.NEAREST if width < SIDE else Image.Resampling.BICUBIC
    photograph = Image.fromarray(found.image).resize(size(found), sharp)
    shown = over(photograph, views[0], (width, height)) if views else photograph
    mark(shown, ((found.at[0] + 0.5) * SIDE / width, (found.at[1] + 0.5) * SIDE / width))
    return shown


if __name__ == "__main__":
    main()
