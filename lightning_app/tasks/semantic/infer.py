"""Class maps, overlays and class shares of photographs and of videos."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lightning_app.data.bad_file import BadFile, regular_file
from lightning_app.data.rasters import is_raster
from lightning_app.tasks.infer import Advance, Infer, named
from lightning_app.tasks.report import save_jpeg
from lightning_app.tasks.semantic.draw import blend, percent
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.tasks.semantic.protocol import EvaluationProtocol, Size
from lightning_app.tasks.semantic.rasters import channel_means, segment_raster
from lightning_app.tasks.semantic.segmenter import CLOSER, PRECISIONS, Options
from lightning_app.util.files import replacing


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


class SemanticInfer(Infer):
    """Writes the class numbers (NAME.png), a picture (NAME_overlay.jpg) and the share of each class (NAME.json); of a
    TIFF that is large or lies on a map the numbers as NAME.tif."""

    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "--window": {
            "type": _window,
            "default": "auto",
            "metavar": "H W|N|none",
            "help": "look at images at their own resolution, in windows of this size; none: at the whole, however "
            "large; default: as the weights were measured, with windows where an image is much larger than what they "
            "know",
        },
        "--overlap": {
            "type": _overlap,
            "metavar": "SHARE",
            "help": "of neighbouring windows, 0 to 0.9; default: 0.33",
        },
        "--tta": {
            "action": "store_true",
            "default": False,
            "help": "average over six scales, each mirrored as well: slower and better",
        },
        "--fast": {
            "action": "store_true",
            "default": False,
            "help": "batch norms folded, bfloat16 where the machine has it: about twice as fast on a CPU, nearly "
            "all labels the same",
        },
        "--precision": {"choices": tuple(PRECISIONS), "default": "32-true", "help": "default: 32-true"},
        "--batch": {
            "type": _batch,
            "default": 1,
            "metavar": "N",
            "help": "windows that go through the model together; default: 1",
        },
    }
    writes = (".png", "_overlay.jpg", ".json")
    done = "segmented"

    def __init__(self, network: Segmentor, typed: argparse.Namespace) -> None:
        asked = Options(typed.window, typed.overlap, typed.tta, typed.precision, typed.batch)
        if typed.fast:
            network.fast(half=None if typed.precision == "32-true" else False)
        self.segmenter, self.weights = network.segmenter(asked), network.known.name
        self.has_spoken = False  # of windows that nobody asked for

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

    def image(self, source: Path, target: Path, advance: Advance) -> str:
        if is_raster(source):
            return self.raster(source, target, advance)
        done = 0.0

        def follow(share: float) -> None:
            nonlocal done
            done += share
            advance(share)

        try:
            seen = self.segmenter(source, follow)
        finally:
            advance(1 - done)
        size = (seen.mask.shape[0], seen.mask.shape[1])
        self.say_windows(source, size)
        seen.save(named(target, ".png"))
        seen.save_overlay(named(target, "_overlay.jpg"))
        self._write_json(source, target, size, seen.protocol, seen.shares)
        return _line(source, named(target, ".png"), seen.shares)

    def raster(self, source: Path, target: Path, advance: Advance) -> str:
        """The same of a TIFF that is read and written by windows: NAME.tif in place of NAME.png."""
        done = 0.0

        def follow(share: float) -> None:
            nonlocal done
            done += share
            advance(share)

        result = named(target, ".tif")
        try:
            seen = segment_raster(self.segmenter, source, result, follow)
        finally:
            advance(1 - done)
        if seen.left_out:
            bands = f"{seen.left_out} band is" if seen.left_out == 1 else f"{seen.left_out} bands are"
            channels = len(channel_means(self.segmenter))
            print(f"{source}: its last {bands} left out: {self.weights} sees {channels}", file=sys.stderr)
        save_jpeg(seen.preview, named(target, "_overlay.jpg"))
        self._write_json(source, target, seen.size, seen.protocol, seen.shares, data=seen.data)
        return _line(source, result, seen.shares)

    def video(self, source: Path, target: Path, advance: Advance) -> str:
        """Write the coloured video, and the class shares over all its frames."""
        import av

        pixels: dict[str, float] = {}  # shares of all frames, added up
        count = 0
        try:
            with (
                regular_file(source),
                replacing(named(target, "_overlay.mp4")) as path,
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
                    seen = self.segmenter(image)
                    pixels = {
                        name: pixels.get(name, 0) + seen.shares.get(name, 0) for name in {**pixels, **seen.shares}
                    }
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
        self.say_windows(source, size)
        self._write_json(source, target, size, self.segmenter.protocol(size), shares, frames=count)
        return _line(source, named(target, "_overlay.mp4"), shares)

    def _write_json(
        self,
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
            "weights": self.weights,
            "protocol": {key: value for key, value in asdict(how).items() if value},
            "classes": shares,
        }
        with replacing(named(target, ".json")) as path:
            path.write_text(json.dumps(content, indent=1))


def _line(source: Path, result: Path, shares: Mapping[str, float]) -> str:
    largest = ", ".join(f"{percent(share)} {name}" for name, share in list(shares.items())[:3])
    return f"{source}: {largest} -> {result}"
