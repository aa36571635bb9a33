"""``contextzoo segment``: class maps, overlays and class shares of photographs, of folders of them, and of videos."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from glob import glob
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lightning_app.data.images import LIMIT_VARIABLE, MAX_PIXELS, SUFFIXES, BadFile, left_out, regular_file
from lightning_app.tasks.semantic.draw import blend, percent
from lightning_app.tasks.semantic.inference import EvaluationProtocol, Size
from lightning_app.tasks.semantic.segmenter import CLOSER, PRECISIONS, Advance, Options, Segmenter
from lightning_app.tools.parser import Parser
from lightning_app.util.errors import InputError, suggest
from lightning_app.util.extras import install
from lightning_app.util.files import replacing
from lightning_app.weights.load import load

VIDEOS: Final = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})


@dataclass
class _Work:
    """What one command line does to each of its files."""

    segmenter: Segmenter
    weights: str  # their name
    has_spoken: bool = False  # of windows that nobody asked for

    def say_windows(self, source: Path, size: Size) -> None:
        """Once, that large images are seen in windows, and how to have it otherwise."""
        if self.has_spoken or self.segmenter.options.window != "auto" or not self.segmenter.is_large(size):
            return
        self.has_spoken = True
        how = self.segmenter.protocol(size)
        assert how.crop is not None
        height, width = how.crop
        if how.fit is None:
            seen = f"is seen in windows of {width}x{height}"
        else:
            times = max(size) / max(height, width)
            seen = (
                f"is {times:.0f} times as wide and high as what {self.weights} knows: seen as a whole of "
                f"{width}x{height}, and {CLOSER[-1]:g} times closer in windows of that size"
            )
        print(
            f"{source}, {size[1]}x{size[0]}, {seen}. --window none: the whole alone; "
            "--window H W: at its own resolution",
            file=sys.stderr,
        )


def main(args: Sequence[str]) -> int:
    """Segment everything that was named; 1 where some of it could not be."""
    options = _parse(args)
    sources = _sources(options.inputs, options.out)
    asked = Options(options.window, options.overlap, options.tta, options.precision, options.batch)
    model = load(options.weights, device=options.device, task="semantic")
    work = _Work(model.segmenter(asked), model.known.name)
    skipped = 0
    with _progress(len(sources)) as advance:
        for target, source in sources.items():
            segment = _segment_video if _is_video(source) else _segment_image
            try:
                print(segment(work, source, target, advance), flush=True)
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


def _segment_image(work: _Work, source: Path, target: Path, advance: Advance) -> str:
    """Write the three files of one image; returns the line to print."""
    done = 0.0

    def follow(share: float) -> None:
        nonlocal done
        done += share
        advance(share)

    try:
        seen = work.segmenter(source, follow)
    finally:
        advance(1 - done)
    size = (seen.mask.shape[0], seen.mask.shape[1])
    work.say_windows(source, size)
    seen.save(_named(target, ".png"))
    seen.save_overlay(_named(target, "_overlay.jpg"))
    _write_json(work, source, target, size, seen.protocol, seen.shares)
    return _line(source, _named(target, ".png"), seen.shares)


def _segment_video(work: _Work, source: Path, target: Path, advance: Advance) -> str:
    """Write the coloured video and the class shares over all its frames; returns the line to print."""
    import av

    pixels: dict[str, float] = {}  # shares of all frames, added up
    count = 0
    try:
        with (
            regular_file(source),
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
                seen = work.segmenter(image)
                pixels = {name: pixels.get(name, 0) + seen.shares.get(name, 0) for name in {**pixels, **seen.shares}}
                count += 1
                blend(image, seen.mask, seen.palette, out=image)
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
    shares = {name: pixels[name] / count for name in sorted(pixels, key=pixels.__getitem__, reverse=True)}
    work.say_windows(source, size)
    _write_json(work, source, target, size, work.segmenter.protocol(size), shares, frames=count)
    return _line(source, _named(target, "_overlay.mp4"), shares)


def _write_json(
    work: _Work,
    source: Path,
    target: Path,
    size: Size,
    how: EvaluationProtocol,
    shares: Mapping[str, float],
    **more: Any,
) -> None:
    content = {
        "image": str(source),
        "height": size[0],
        "width": size[1],
        **more,
        "weights": work.weights,
        "protocol": {key: value for key, value in asdict(how).items() if value},
        "classes": shares,
    }
    with replacing(_named(target, ".json")) as path:
        path.write_text(json.dumps(content, indent=1))


def _line(source: Path, result: Path, shares: Mapping[str, float]) -> str:
    largest = ", ".join(f"{percent(share)} {name}" for name, share in list(shares.items())[:3])
    return f"{source}: {largest} -> {result}"


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
        if os.path.realpath(source) == os.path.realpath(_named(target, ".png")):
            raise InputError(f"{source} would be overwritten by its class map: give another --out")
    if any(map(_is_video, found.values())):
        try:
            import av  # noqa: F401
        except ImportError:
            raise InputError(f"Videos need PyAV: {install('video')}") from None
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
            there = [each.name for each in path.parent.glob("*")] if path.parent.is_dir() else []
            raise InputError(f"{name}: no such file or folder.{suggest(path.name, there, cutoff=0.5)}")
        root = Path(os.path.commonpath([each.parent for each in paths]))
    known = SUFFIXES | VIDEOS
    if others := left_out(each for each in paths if each.suffix.lower() not in known):
        print(f"{name}: {others}", file=sys.stderr)
    paths = sorted(each for each in paths if each.suffix.lower() in known)
    if not paths:
        raise InputError(f"{name}: no images or videos there (known: {' '.join(sorted(known))})")
    return root, paths


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


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


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="contextzoo segment",
        description="Write for each image its class numbers (NAME.png), a picture (NAME_overlay.jpg) and the share of "
        "each class (NAME.json), at the image's own size; for a video the coloured video and the shares.",
        epilog="example: contextzoo segment street.jpg --weights ccnet_r50-d8_cityscapes-512x1024_40k. "
        f"Pictures of more than {MAX_PIXELS} pixels are left out, or of as many as {LIMIT_VARIABLE} says.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="PHOTO|FOLDER|GLOB|VIDEO")
    add(
        "--weights",
        required=True,
        metavar="ID|PATH",
        help="of the zoo (contextzoo zoo list); a run's name or folder, last, best; or a file",
    )
    add("--out", type=Path, default=Path("segmented"), metavar="DIR", help="default: segmented")
    add(
        "--window",
        type=_window,
        default="auto",
        metavar="H W|N|none",
        help="look at images at their own resolution, in windows of this size; none: at the whole, however large; "
        "default: as the weights were measured, with windows where an image is much larger than what they know",
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


def _window(text: str) -> Size | str:
    if text in ("auto", "none", "0"):
        return text.replace("0", "none")
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512 1024, or 512, and not none")
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
