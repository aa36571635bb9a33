"""What ``contextzoo app`` shows of a photograph: pure functions from networks and pixels to pictures and words."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lightning_app.data.bad_file import BadFile
from lightning_app.data.images import read_header, read_image
from lightning_app.tasks.info import evaluating
from lightning_app.tasks.instance.draw import SHORTEST
from lightning_app.tasks.instance.network import InstanceSegmentor
from lightning_app.tasks.instance.objects import SHOWN
from lightning_app.tasks.pose.draw import SMALLEST
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.tasks.semantic.draw import blend, percent
from lightning_app.tasks.semantic.inference import predict
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.tasks.semantic.segmentation import Segmentation
from lightning_app.tasks.semantic.segmenter import Options

MOST: Final = 50_000_000  # pixels of an uploaded picture
SIDE: Final = 1280  # pixels of the longer side that is looked at; larger pictures are made smaller first
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Looked:
    """What one network sees.

    Args:
        picture: the photograph with what is seen drawn over it, ``drawn_larger`` times its size.
        words: HTML that tells it: classes with their shares, or what was found.
        uncertainty: of each pixel's class, drawn; None of other tasks.
        names: the class of each pixel as a number, and what the numbers mean; None of other tasks.
    """

    picture: Image.Image
    words: str
    uncertainty: Image.Image | None = None
    names: tuple[Pixels, Sequence[str]] | None = None


def photograph(path: Path) -> Pixels:
    """RGB pixels of an uploaded file, made smaller where it is larger than is looked at.

    Raises:
        BadFile: no picture, or one of too many pixels; it names the file without its folder.
    """
    try:
        height, width = read_header(path).size
        if height * width > MOST:
            fix = "Make it smaller, or call contextzoo segment."
            raise BadFile(path, ("Too many pixels",), fix, f"{width}x{height}, at most {MOST}")
        pixels = read_image(path)
    except BadFile as error:
        raise BadFile(Path(path.name), error.problems, error.fix, error.detail.replace(str(path.parent), "")) from None
    if max(pixels.shape[:2]) <= SIDE:
        return pixels
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.array(picture)


def look(network: Any, pixels: Pixels) -> Looked:
    """What a network of any task sees."""
    if isinstance(network, InstanceSegmentor):
        objects = network.predict(pixels).above(SHOWN)
        told = ", ".join(f"{count} {name}" for name, count in objects.counts.items()) or "nothing"
        return Looked(objects.overlay(), f"<p>{escape(told)} with a score of {SHOWN} or more</p>")
    if isinstance(network, PoseEstimator):
        poses = network.predict(pixels)
        return Looked(poses.overlay(), f"<p>score {poses.scores[0]:.2f} of one pose that fills the photograph</p>")
    known, segmenter = network.known, network.segmenter(Options())
    size = (pixels.shape[0], pixels.shape[1])
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    with evaluating(network), torch.inference_mode():
        shares = predict(segmenter.logits, image, size, segmenter.protocol(size))[0].softmax(0)
        ids = shares.argmax(0).to("cpu", torch.uint8).numpy()
        entropy = torch.special.entr(shares).sum(0).cpu().numpy() / np.log(max(len(shares), 2))
    seen = Segmentation(pixels, ids, known.classes, known.palette)
    coloured = np.empty_like(pixels)
    blend(pixels, ids, known.palette, out=coloured)
    words = f"{legend(seen)}<p>Mean uncertainty {entropy.mean():.2f} (0 sure, 1 no idea)</p>"
    return Looked(Image.fromarray(coloured), words, glowing(pixels, entropy), (ids, known.classes))


def drawn_larger(network: Any, pixels: Pixels) -> int:
    """How many times as large as the photograph ``look`` draws it: objects and keypoints need room."""
    longest: int = max(pixels.shape[:2])
    if isinstance(network, Segmentor):
        return 1
    if isinstance(network, InstanceSegmentor):
        return max(1, SHORTEST // longest)
    return max(1, ceil(SMALLEST / longest))


def legend(seen: Segmentation) -> str:
    """The classes that are there, with their colours and shares, as HTML."""
    colours = dict(zip(seen.classes, seen.palette, strict=False))
    rows = (
        f'<li><span style="background: rgb{tuple(colours[name])}"></span> {escape(name)} <b>{percent(share)}</b></li>'
        for name, share in seen.shares.items()
    )
    return f'<ul class="legend">{"".join(rows)}</ul>'


def glowing(pixels: Pixels, strength: NDArray[np.floating[Any]]) -> Image.Image:
    """A map of 0..1 over the photograph in grey: orange where it is high."""
    grey = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float32)[..., None] * 0.5
    share = np.clip(strength, 0, 1).astype(np.float32)[..., None]
    return Image.fromarray((grey * (1 - share) + np.array([255, 140, 20]) * share).round().astype(np.uint8))


def difference(pixels: Pixels, one: Looked, other: Looked) -> tuple[Image.Image, str] | None:
    """Where two networks name another class, and on how much of the picture; None where one of them names none."""
    if one.names is None or other.names is None:
        return None
    (ids, classes), (other_ids, other_classes) = one.names, other.names
    words = sorted({*classes, *other_classes})
    differ = _numbers(ids, classes, words) != _numbers(other_ids, other_classes, words)
    return glowing(pixels, differ), f"They name another class on {percent(float(differ.mean()))} of the pixels."


def _numbers(ids: Pixels, classes: Sequence[str], words: Sequence[str]) -> NDArray[np.int64]:
    """Class numbers of one network as places in a common list of names."""
    return np.array([words.index(name) for name in classes])[ids]
