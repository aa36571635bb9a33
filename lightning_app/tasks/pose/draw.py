"""Skeletons over a photograph."""

from collections.abc import Sequence
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_app.data.facts import default_palette
from lightning_app.data.pose.facts import Keypoints

Colour = tuple[int, int, int]

LEFT, RIGHT, MIDDLE = (86, 180, 233), (230, 159, 0), (0, 170, 110)  # Okabe and Ito: the colour blind tell them apart
RIM, MARK = (255, 255, 255), (255, 255, 255)
SURE: Final = 0.2  # a point below this score is a ring without bones
SMALLEST: Final = 640  # pixels of the longer side: smaller photographs are drawn on larger
FINER: Final = 2  # times as fine as it is drawn, for smooth edges
LARGEST: Final = 4096  # pixels of the longer side from which edges stay as they are


def skeletons(
    image: NDArray[np.uint8],
    keypoints: NDArray[np.float32],
    scores: NDArray[np.float32],
    facts: Keypoints,
    truth: NDArray[np.float32] | None = None,
) -> Image.Image:
    """Bones and points of all people; what is on their left is blue, on their right orange, by the flip pairs' names.

    Points of things without bones have a colour each. A point that the network is not sure of is an empty ring.

    Shape: image (H, W, 3), keypoints (N, K, 2), scores (N, K), truth (M, K, 3) as x, y, v: drawn as crosses.
    """
    height, width = image.shape[:2]
    factor = max(1, ceil(SMALLEST / max(height, width)))
    finer = factor * (FINER if factor * max(height, width) <= LARGEST else 1)
    canvas = Image.fromarray(image).resize((width * finer, height * finer), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    colours = point_colours(facts)
    unit = max(1.0, max(height, width) * finer / 320)  # of a bone's thickness
    for points, sure in zip((keypoints + 0.5) * finer, scores >= SURE, strict=True):
        spots = [(float(x), float(y)) for x, y in points]
        for first, second in facts.skeleton:
            if sure[first] and sure[second]:
                draw.line([spots[first], spots[second]], bone_colour(colours, first, second), round(2 * unit))
        for spot, colour, is_sure in zip(spots, colours, sure, strict=True):
            fill, rim = (colour, RIM) if is_sure else (None, colour)
            _dot(draw, spot, 1.6 * unit, fill, rim, max(1, round(unit / 2)))
    for marked in np.zeros((0, 0, 3)) if truth is None else truth:
        for x, y, labelled in marked:
            if labelled > 0:
                _cross(draw, ((x + 0.5) * finer, (y + 0.5) * finer), 1.8 * unit, max(1, round(0.7 * unit)))
    return canvas.resize((width * factor, height * factor), Image.Resampling.BOX) if finer > factor else canvas


def point_colours(facts: Keypoints) -> list[Colour]:
    """Of each keypoint."""
    if not facts.skeleton:
        return list(default_palette(len(facts.names)))
    colours: list[Colour] = [MIDDLE] * len(facts.names)
    for first, second in facts.flip_pairs:
        left, right = (second, first) if "right" in facts.names[first].lower() else (first, second)
        colours[left], colours[right] = LEFT, RIGHT
    return colours


def bone_colour(colours: Sequence[Colour], first: int, second: int) -> Colour:
    """That of its ends; where they differ the one that is no middle, and from left to right the middle's."""
    one, other = colours[first], colours[second]
    if one == other or other == MIDDLE:
        return one
    return other if one == MIDDLE else MIDDLE


def _dot(
    draw: ImageDraw.ImageDraw, spot: tuple[float, float], radius: float, fill: Colour | None, rim: Colour, thick: int
) -> None:
    x, y = spot
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill, rim, thick)


def _cross(draw: ImageDraw.ImageDraw, spot: tuple[float, float], arm: float, thick: int) -> None:
    x, y = spot
    draw.line([(x - arm, y - arm), (x + arm, y + arm)], MARK, thick)
    draw.line([(x - arm, y + arm), (x + arm, y - arm)], MARK, thick)
