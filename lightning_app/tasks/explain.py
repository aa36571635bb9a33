"""Where the answer at one pixel of a photograph comes from: a block's own attention, or the reach of the gradient."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from lightning_app.blocks._looks import At, Look
from lightning_app.data.pictures import Picture, pixels_of
from lightning_app.tasks.info import evaluating
from lightning_app.util.errors import InputError, check_choice

By = Literal["auto", "attention", "gradient"]
BYS: Final = ("auto", "attention", "gradient")
Pixels = NDArray[np.uint8]


class Box(NamedTuple):
    """A part of a photograph, in its pixels, whose edges may lie outside of it."""

    left: float
    top: float
    right: float
    bottom: float


class Seen(NamedTuple):
    """What a network sees of a photograph: an image (1, 3, h, w) in 0..1, and the part of the photograph that it is."""

    image: Tensor
    box: Box


class Explainable(Protocol):
    """What a task's network says so that its answers can be explained."""

    backbone: nn.Module

    def seen(self, pixels: Tensor, at: At) -> Seen:
        """What it looks at to answer for one pixel of a photograph (3, H, W) of bytes."""

    def answer(self, image: Tensor, at: At) -> tuple[Tensor, str]:
        """Its answer for one pixel of what it sees: a number with a gradient, and that in words."""


@dataclass(frozen=True, eq=False)
class View:
    """One map of where an answer comes from, on a grid of the network's own.

    Shape: weights (h, w).

    Args:
        name: what it is, for people.
        kind: see ``Look``; of a gradient "share".
        box: the part of the photograph that the grid lies on.
        at: x and y in the photograph.
    """

    name: str
    kind: Literal["share", "gate", "signed"]
    weights: NDArray[np.float32]
    box: Box
    at: tuple[int, int]

    def within(self, share: float) -> float:
        """Pixels of the photograph around the point that hold this share of all weight, signs left out."""
        weights = np.abs(self.weights, dtype=np.float64)
        rows, columns = weights.shape
        down, across = (self.box.bottom - self.box.top) / rows, (self.box.right - self.box.left) / columns
        y = self.box.top + (np.arange(rows) + 0.5) * down - self.at[1] - 0.5
        x = self.box.left + (np.arange(columns) + 0.5) * across - self.at[0] - 0.5
        distance = np.hypot(y[:, None], x[None]).ravel()
        order = np.argsort(distance, kind="stable")
        total = weights.ravel()[order].cumsum()
        if not total[-1]:
            return 0.0
        return float(distance[order[np.searchsorted(total, share * total[-1] * (1 - 1e-9))]])

    @property
    def line(self) -> str:
        """Itself in words."""
        if self.kind == "gate":
            return f"{self.name}: {self.weights.min():.3g} to {self.weights.max():.3g}"
        return f"{self.name}: half within {self.within(0.5):.0f} px, 90 % within {self.within(0.9):.0f} px"


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the answer at one pixel comes from.

    Shape: image (H, W, 3) uint8 RGB, upright.

    Args:
        at: x and y of the pixel.
        answer: what the network says there, in words.
        by: "attention" or "gradient".
        views: the maps; of a gradient one.
    """

    image: Pixels
    at: tuple[int, int]
    answer: str
    by: str
    views: Sequence[View] = field(default_factory=tuple)

    @cached_property
    def lines(self) -> list[str]:
        """A line for each map."""
        return [view.line for view in self.views]

    def picture(self, columns: int = 3) -> Image.Image:
        """The picture for people: the photograph with its point, and each map over it."""
        from lightning_app.tasks.explain_draw import draw

        return draw(self, columns)

    def save(self, path: str | Path) -> None:
        """Write ``picture`` as a JPEG."""
        from lightning_app.tasks.report import save_jpeg

        save_jpeg(self.picture(), Path(path))


def explain(network: Any, picture: Picture, at: tuple[int, int], by: By = "auto") -> Explanation:
    """Where the network's answer at one pixel comes from.

    By attention: the weights of each block that says where a position looks (``blocks/_looks.py``), at the position
    that covers the pixel. By gradient: |d answer / d pixel|, summed over colours and divided by its sum over the image,
    which shows how far the answer reaches (the effective receptive field of arXiv:1701.04128) for any network.

    Args:
        network: with pretrained weights, of any task.
        picture: a file, a Pillow image, an array (H, W, 3) of bytes, or a tensor (3, H, W) of floats in 0..1.
        at: x and y of the pixel, counted from 0.
        by: "auto" is by attention where a block says it.

    Raises:
        InputError: a picture that cannot be used, a point outside of it, or attention of a network without it.
    """
    check_choice("by", by, BYS)
    pixels = pixels_of(picture)
    height, width = pixels.shape[:2]
    x, y = at
    if not (0 <= x < width and 0 <= y < height):
        name = picture if isinstance(picture, str | Path) else "the picture"
        raise InputError(
            f"The point {x},{y} lies outside of {name}, which is {width}x{height}: "
            f"give x from 0 to {width - 1} and y from 0 to {height - 1}"
        )
    blocks = _blocks(network)
    if by == "attention" and not blocks:
        raise InputError(
            "No block of this network says where it looks: leave --by out, or give --by gradient, which any network has"
        )
    with evaluating(network), torch.enable_grad():
        seen = network.seen(torch.from_numpy(pixels).permute(2, 0, 1), (y, x))
        size, box = (seen.image.shape[-2], seen.image.shape[-1]), seen.box
        place = _cell(y, box.top, box.bottom, size[0]), _cell(x, box.left, box.right, size[1])
        if by == "gradient" or not blocks:
            image = seen.image.requires_grad_()
            number, answer = network.answer(image, place)
            (gradient,) = torch.autograd.grad(number, image)
            reach = gradient[0].abs().sum(0)
            views = [View("reach of the gradient", "share", _array(reach / reach.sum().clamp(min=1e-30)), box, at)]
            return Explanation(pixels, (x, y), answer, "gradient", views)
        with torch.no_grad(), _looking(network, blocks, place) as (found, padded):
            _, answer = network.answer(seen.image, place)
    grid = Box(
        box.left,
        box.top,
        box.left + (box.right - box.left) * padded[1] / size[1],
        box.top + (box.bottom - box.top) * padded[0] / size[0],
    )
    views = [View(look.name, look.kind, _array(look.weights), grid, at) for look in found]
    return Explanation(pixels, (x, y), answer, "attention", views)


def _blocks(network: nn.Module) -> dict[str, nn.Module]:
    """The outermost modules that say where they look, in the order of the network."""
    found: dict[str, nn.Module] = {}
    for name, module in network.named_modules():
        if hasattr(module, "looks") and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


@contextmanager
def _looking(network: Any, blocks: dict[str, nn.Module], at: At) -> Iterator[tuple[list[Look], list[int]]]:
    """What the blocks say while the network runs, for the pixel ``at``; and the size that its backbone saw."""
    found: list[Look] = []
    padded: list[int] = []

    def saw(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        padded[:] = inputs[0].shape[-2:]

    def listen(name: str) -> Any:
        def hear(module: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            place = _cell(at[0], 0, padded[0], output.shape[-2]), _cell(at[1], 0, padded[1], output.shape[-1])
            prefix = f"{_short(name)}: " if len(blocks) > 1 else ""
            found.extend(look._replace(name=prefix + look.name) for look in module.looks(place, *inputs))

        return hear

    handles = [network.backbone.register_forward_pre_hook(saw)]
    handles += [module.register_forward_hook(listen(name)) for name, module in blocks.items()]
    try:
        yield found, padded
    finally:
        for handle in handles:
            handle.remove()


def _short(name: str) -> str:
    """A block's place in the network, without the words that say nothing."""
    words = [word for word in name.split(".") if word not in ("head", "backbone", "model", "block")]
    return ".".join(words) or "block"


def _cell(place: float, start: float, stop: float, count: int) -> int:
    """Which of ``count`` even cells between start and stop holds the middle of a pixel."""
    return min(max(int((place + 0.5 - start) / (stop - start) * count), 0), count - 1)


def _array(weights: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = weights.detach().float().cpu().numpy()
    return array
