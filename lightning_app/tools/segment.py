"""``contextzoo segment``: class maps, overlays and class shares of photographs, of folders of them, and of videos."""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from glob import glob
from itertools import chain
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from lightning_app.data.images import SUFFIXES, BadFile, read_image
from lightning_app.errors import InputError
from lightning_app.explain import closest
from lightning_app.files import replacing
from lightning_app.inference import Protocol, Size, fitted, predict_classes
from lightning_app.overlay import Colours, blend, class_shares, overlay, percent
from lightning_app.pretrained import load
from lightning_app.segmentor import Segmentor

VIDEOS: Final = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})
PRECISIONS: Final = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
SCALES: Final = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of --tta, those of the field's multi-scale figures
WHOLE: Final = 2048 * 1024  # pixels: larger images are seen in windows where the protocol has neither box nor windows
WINDOW: Final = (1024, 1024)
JPEG_SIDE: Final = 65_500  # pixels that the format can hold
LOGITS: Final = 192 * 2**20  # bytes of logits that are held at once

Ids = NDArray[np.uint8]
Advance = Callable[[float], None]


def main(args: Sequence[str]) -> int:
    """Segment everything that was named; 1 where some of it could not be."""
    options = _parse(args)
    sources = _sources(options.inputs, options.out)
    segmenter = Segmenter(load(options.weights, device=options.device), options)
    skipped = 0
    with _progress(len(sources)) as advance, _images_of_any_size():
        for target, source in sources.items():
            segment = _segment_video if _is_video(source) else _segment_image
            try:
                print(segment(segmenter, source, target, advance), flush=True)
            except BadFile as error:
                skipped += 1
                print(error, file=sys.stderr)
            except MemoryError:
                skipped += 1
                print(f"{source}: out of memory again. Give a smaller --window.", file=sys.stderr)
            except OSError as error:  # of writing; what cannot be read is a BadFile
                raise InputError(f"{error.filename or options.out}: {error.strerror or error}") from None
    if skipped:
        print(f"{len(sources) - skipped} of {len(sources)} segmented, {skipped} skipped", file=sys.stderr)
    return int(skipped > 0)


class Segmenter:
    """Images to class numbers, by the protocol of the weights and what was asked on top of it.

    When memory runs out, the window is halved once and stays so.
    """

    def __init__(self, model: Segmentor, options: argparse.Namespace) -> None:
        assert model.info is not None
        self.model, self.info, self.options = model, model.info, options
        self.halved = False

    def __call__(self, image: NDArray[np.uint8], advance: Advance) -> Ids:
        """Class numbers; ``advance`` hears of each share of the pixels that is done.

        Shape: (H, W, 3) -> (H, W).

        Raises:
            MemoryError: half the window is too much as well.
        """
        ids = self._attempt(image, advance)
        if ids is None and not self.halved:
            self.halved = True
            crop = self.protocol((image.shape[0], image.shape[1])).crop
            assert crop is not None
            print(f"Out of memory: going on in windows of {crop[0]}x{crop[1]}", file=sys.stderr)
            ids = self._attempt(image, advance)
        if ids is None:
            raise MemoryError
        return ids

    def _attempt(self, image: NDArray[np.uint8], advance: Advance) -> Ids | None:
        """Class numbers; None where memory runs out."""
        try:
            return self._classes(image, advance)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def protocol(self, size: Size) -> Protocol:
        """How an image of this size is looked at."""
        options, how = self.options, self.info.protocol
        if options.window:
            how = replace(how, mode="slide", crop=options.window, stride=None, fit=None)
        elif how.mode == "whole" and how.fit is None and size[0] * size[1] > WHOLE:
            how = replace(how, mode="slide", crop=WINDOW, stride=None)
        if self.halved:
            height, width = how.crop if how.mode == "slide" and how.crop else fitted(size, how)
            how = replace(how, mode="slide", crop=(-(-height // 2), -(-width // 2)), stride=None)
        if options.overlap is not None and how.crop:
            down, across = (max(round(side * (1 - options.overlap)), 1) for side in how.crop)
            how = replace(how, stride=(down, across))
        if options.tta:
            how = replace(how, scales=SCALES, flip=True)
        return replace(how, antialias=how.antialias or how.fit is not None, batch=options.batch)

    @torch.inference_mode()
    def _classes(self, image: NDArray[np.uint8], advance: Advance) -> Ids:
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        height, width = image.shape[:2]
        how = self.protocol((height, width))
        ids = np.empty((height, width), dtype=np.uint8)
        for place, classes in predict_classes(self._logits, pixels, (height, width), how, self._tile(how)):
            ids[place] = classes[0].to("cpu", torch.uint8).numpy()
            advance(classes[0].numel() / ids.size)
        return ids

    def _logits(self, pixels: Tensor) -> Tensor:
        device = torch.device(self.options.device)
        images = pixels.to(device).float() / 255
        dtype = PRECISIONS[self.options.precision]
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits: Tensor = self.model(images)
        return logits

    def _tile(self, how: Protocol) -> Size:
        """As many columns of the height of a window as have logits that fit, in whole steps of the windows.

        Where views are resized, a square of a quarter of that, since a resize needs room.
        """
        room = LOGITS // (4 * len(self.info.classes))
        if how.mode == "whole" or how.fit or how.crop is None or self.options.tta:
            side = math.isqrt(room // 4)
            return side, side
        across = how.stride[1] if how.stride else round(how.crop[1] * 2 / 3) or 1
        return how.crop[0], max(room // how.crop[0] // across, 1) * across


def _segment_image(segmenter: Segmenter, source: Path, target: Path, advance: Advance) -> str:
    """Write the three files of one image; returns the line to print."""
    done = 0.0

    def follow(share: float) -> None:
        nonlocal done
        done += share
        advance(share)

    try:
        image = read_image(source)
        ids = segmenter(image, follow)
    finally:
        advance(1 - done)
    info = segmenter.info
    with replacing(_named(target, ".png")) as path:
        _class_map(ids, info.palette).save(path, "PNG")
    picture = overlay(image, ids, info.classes, info.palette)
    picture.thumbnail((JPEG_SIDE, JPEG_SIDE))
    with replacing(_named(target, "_overlay.jpg")) as path:
        picture.save(path, "JPEG", quality=90)
    shares = class_shares(ids, len(info.classes))
    _write_json(segmenter, source, target, (ids.shape[0], ids.shape[1]), shares)
    return _line(segmenter, source, _named(target, ".png"), shares)


def _class_map(ids: Ids, palette: Colours) -> Image.Image:
    """A palette image whose pixels are class numbers."""
    image = Image.fromarray(ids)
    image.putpalette(bytes(chain.from_iterable(palette)))
    return image


def _segment_video(segmenter: Segmenter, source: Path, target: Path, advance: Advance) -> str:
    """Write the coloured video and the class shares over all its frames; returns the line to print."""
    import av

    info = segmenter.info
    shares, count = np.zeros(len(info.classes)), 0
    try:
        with (
            replacing(_named(target, "_overlay.mp4")) as path,
            av.open(str(source)) as video,
            av.open(str(path), "w", format="mp4") as coloured,
        ):
            stream = video.streams.video[0]
            out = coloured.add_stream("libx264", rate=stream.average_rate or 25)
            out.pix_fmt = "yuv420p"
            for frame in video.decode(stream):
                upright = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                height, width = upright.shape[0] // 2 * 2, upright.shape[1] // 2 * 2  # the codec needs even sides
                image = np.ascontiguousarray(upright[:height, :width], dtype=np.uint8)
                ids = segmenter(image, lambda share: None)
                shares, count = shares + class_shares(ids, len(info.classes)), count + 1
                blend(image, ids, info.palette, out=image)
                if count == 1:
                    out.height, out.width = height, width
                coloured.mux(out.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
                advance(1 / max(stream.frames, count))
            coloured.mux(out.encode(None))
    except (av.FFmpegError, IndexError) as error:
        raise BadFile(source, ("Unreadable",), "Get the file again.", str(error)) from error
    if not count:
        raise BadFile(source, ("No frames",), "Get the file again.")
    size = (height, width)
    _write_json(segmenter, source, target, size, list(shares / count), frames=count)
    return _line(segmenter, source, _named(target, "_overlay.mp4"), list(shares / count))


def _write_json(
    segmenter: Segmenter, source: Path, target: Path, size: Size, shares: Sequence[float], **more: Any
) -> None:
    info = segmenter.info
    ranked = sorted(zip(info.classes, shares, strict=True), key=lambda pair: -pair[1])
    content = {
        "image": str(source),
        "height": size[0],
        "width": size[1],
        **more,
        "weights": info.name,
        "protocol": {key: value for key, value in asdict(segmenter.protocol(size)).items() if value},
        "classes": {name: share for name, share in ranked if share},
    }
    with replacing(_named(target, ".json")) as path:
        path.write_text(json.dumps(content, indent=1))


def _line(segmenter: Segmenter, source: Path, result: Path, shares: Sequence[float]) -> str:
    ranked = sorted(zip(shares, segmenter.info.classes, strict=True), reverse=True)
    return f"{source}: {', '.join(f'{percent(share)} {name}' for share, name in ranked[:3] if share)} -> {result}"


def _named(target: Path, ending: str) -> Path:
    return target.with_name(target.name + ending)


def _sources(inputs: Sequence[str], out: Path) -> dict[Path, Path]:
    """What to segment: where its results go, without ending -> the file.

    Raises:
        InputError: nothing is there, or results would overwrite each other or a source.
    """
    found: dict[Path, Path] = {}
    for name in inputs:
        root, paths = _files(name)
        for path in paths:
            target = out / path.relative_to(root).with_suffix("")
            other = found.setdefault(target, path)
            if other != path:
                raise InputError(f"{other} and {path} would both be segmented to {target}.png: rename one of them")
    for target, source in found.items():
        if source.resolve() == _named(target, ".png").resolve():
            raise InputError(f"{source} would be overwritten by its class map: give another --out")
    if any(map(_is_video, found.values())):
        try:
            import av  # noqa: F401
        except ImportError:
            raise InputError("Videos need PyAV: pip install 'contextzoo[video]'") from None
    return found


def _files(name: str) -> tuple[Path, list[Path]]:
    """The images and videos that a word of the command line means, and the folder that their results do not repeat."""
    path = Path(name)
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        root, paths = path, [each for each in path.rglob("*") if not each.name.startswith(".")]
    else:
        paths = [Path(match) for match in glob(name, recursive=True)]  # noqa: PTH207, which takes no absolute pattern
        if not paths:
            known = [each.name for each in path.parent.glob("*")] if path.parent.is_dir() else []
            raise InputError(f"{name}: no such file or folder.{closest(path.name, known)}")
        root = Path(os.path.commonpath([each.parent for each in paths]))
    paths = sorted(each for each in paths if each.suffix.lower() in SUFFIXES | VIDEOS)
    if not paths:
        raise InputError(f"{name}: no images or videos there (known: {' '.join(sorted(SUFFIXES | VIDEOS))})")
    return root, paths


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def _images_of_any_size() -> Iterator[None]:
    """Pillow refuses large images lest somebody else's file fill the memory; these are the user's own."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _progress(total: int) -> Iterator[Advance]:
    """A progress bar on the error stream, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda share: None
        return
    columns = (TextColumn("{task.completed:.1f}/{task.total} images"), BarColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=total)
        yield lambda share: bar.advance(task, share)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} ({self.prog} --help)")


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="contextzoo segment",
        description="Write for each image its class numbers (NAME.png), a picture (NAME_overlay.jpg) and the share of "
        "each class (NAME.json), at the image's own size; for a video the coloured video and the shares.",
        epilog="example: contextzoo segment street.jpg --weights ccnet_r50-d8_cityscapes-512x1024_40k",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="PHOTO|FOLDER|GLOB|VIDEO")
    add("--weights", required=True, metavar="ID|PATH", help="of the zoo (contextzoo zoo list), of a run, or a file")
    add("--out", type=Path, default=Path("segmented"), metavar="DIR", help="default: segmented")
    add(
        "--window",
        type=_window,
        metavar="H W|N",
        help="look at images at their own resolution, in windows of this size; default: as the weights were measured",
    )
    add("--overlap", type=_overlap, metavar="SHARE", help="of neighbouring windows, 0 to 0.9; default: 0.33")
    add("--tta", action="store_true", help="average over six scales, each mirrored as well: slower and better")
    add("--device", type=_device, default="auto", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    add("--precision", choices=tuple(PRECISIONS), default="32-true", help="default: 32-true")
    add("--batch", type=_batch, default=1, metavar="N", help="windows that go through the model together; default: 1")
    return parser.parse_args(_joined(args))


def _joined(args: Sequence[str]) -> list[str]:
    """``--window 512 1024`` as the one word that argparse can tell from the names that follow."""
    joined = list(args)
    for place in range(len(joined) - 2):
        if joined[place] == "--window" and joined[place + 1].isdecimal() and joined[place + 2].isdecimal():
            joined[place + 1 : place + 3] = ["x".join(joined[place + 1 : place + 3])]
            break
    return joined


def _window(text: str) -> Size:
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512 1024, or 512")
    return int(sides[0]), int(sides[-1])


def _overlap(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 <= share <= 0.9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 0.9")
    return share


def _batch(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of windows")
    return int(text)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise argparse.ArgumentTypeError(f"{name!r} cannot be used here: {reason}") from None
    return name
