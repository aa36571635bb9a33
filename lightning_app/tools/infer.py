"""``contextzoo infer``: what is seen in photographs, in folders of them and, as class maps, in videos."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Final

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lightning_app.data.bad_file import BadFile
from lightning_app.data.images import left_out
from lightning_app.data.picture_files import SUFFIXES
from lightning_app.data.pixel_limit import LIMIT_VARIABLE, MAX_PIXELS
from lightning_app.registry import TASKS
from lightning_app.tasks.infer import Advance, Infer, named
from lightning_app.tools.parser import Parser
from lightning_app.util.errors import InputError, suggest
from lightning_app.util.extras import install
from lightning_app.util.files import check_folder
from lightning_app.weights.load import load

VIDEOS: Final = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})
Ways = Mapping[str, type[Infer]]  # of each task


def main(args: Sequence[str]) -> int:
    """Look at everything that was named with weights of any task; 1 where some of it could not be used."""
    ways = {slug: TASKS[slug].infer for slug in TASKS if TASKS[slug].infer is not None}
    return run("infer", args, ways, Path("inferred"))


def run(verb: str, args: Sequence[str], ways: Ways, out: Path) -> int:
    """The same for weights of certain tasks.

    Args:
        verb: as it was typed.
        ways: what each of these tasks does with a photograph.
        out: where results go unless told otherwise.
    """
    typed = _parser(verb, ways, out).parse_args(_joined(args))
    check_folder(typed.out)
    sources = _sources(typed.inputs, typed.out, list(dict.fromkeys(end for way in ways.values() for end in way.writes)))
    network = load(typed.weights, device=typed.device, task=next(iter(ways)) if len(ways) == 1 else None)
    way = _way(network.info.task, ways, typed)
    for option, task in way.others.items():
        if (other := getattr(typed, _dest(option))) is not None:
            setattr(typed, _dest(option), load(other, device=typed.device, task=task))
    look = way(network, typed)
    skipped = 0
    with _progress(len(sources)) as advance:
        for target, source in sources.items():
            try:
                print((look.video if _is_video(source) else look.image)(source, target, advance), flush=True)
            except BadFile as error:
                skipped += 1
                print(error, file=sys.stderr)
            except MemoryError:
                skipped += 1
                window = " Give a smaller --window." if "--window" in way.options else ""
                print(f"{source}: out of memory again.{window}", file=sys.stderr)
            except OSError as error:  # of writing; what cannot be read is a BadFile
                raise InputError(f"{error.filename or typed.out}: {error.strerror or error}") from None
    if skipped:
        print(f"{len(sources) - skipped} of {len(sources)} {way.done}, {skipped} skipped", file=sys.stderr)
    return int(skipped > 0)


def _way(task: str, ways: Ways, typed: argparse.Namespace) -> type[Infer]:
    """What the task of the weights does, after a look at whether it has the options that were typed.

    Raises:
        InputError: the task looks at no photographs, or an option is another one's.
    """
    if task not in ways:
        raise InputError(f"{typed.weights} is of the task {task}, which looks at no photographs (of {', '.join(ways)})")
    mine = ways[task].options
    for slug, way in ways.items():
        for option in way.options:
            if option not in mine and hasattr(typed, _dest(option)):
                raise InputError(f"{option} is for weights of the task {slug}, and {typed.weights} is of {task}")
    for option, declared in mine.items():
        if not hasattr(typed, _dest(option)):
            setattr(typed, _dest(option), declared.get("default"))
    return ways[task]


def _dest(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def _sources(inputs: Sequence[str], out: Path, endings: Sequence[str]) -> dict[Path, Path]:
    """What to look at: where its results go, without ending -> the file.

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
                raise InputError(
                    f"{other} and {path} would both be written to {named(target, endings[0])}: rename one of them"
                )
    for target, source in found.items():
        for ending in endings:
            if os.path.realpath(source) == os.path.realpath(named(target, ending)):
                raise InputError(f"{source} would be overwritten by its own result: give another --out")
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


def _parser(verb: str, ways: Ways, out: Path) -> Parser:
    """Takes the options of all tasks; a task's own are there only where they were typed."""
    parser = Parser(
        prog=f"contextzoo {verb}",
        description="Write what weights see in each image, at the image's own size: "
        + "; ".join(f"{slug}: {' '.join((way.__doc__ or '').split())}" for slug, way in ways.items()),
        epilog=f"example: contextzoo {verb} street.jpg --weights ccnet_r50-d8_cityscapes-512x1024_40k. "
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
    add("--out", type=Path, default=out, metavar="DIR", help=f"default: {out}")
    add("--device", type=device, default="auto", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    known: set[str] = set()
    for slug, way in ways.items():
        group = parser.add_argument_group(f"of the task {slug}") if len(ways) > 1 else parser
        for option, declared in way.options.items():
            if option not in known:  # two tasks may have one of the same name and meaning
                group.add_argument(option, **{**declared, "default": argparse.SUPPRESS})
        known |= set(way.options)
    return parser


def _joined(args: Sequence[str]) -> list[str]:
    """``--window 512 1024`` as the one word that argparse can tell from the names that follow."""
    joined = list(args)
    for place in range(len(joined) - 2):
        if joined[place] == "--window" and joined[place + 1].isdecimal() and joined[place + 2].isdecimal():
            joined[place + 1 : place + 3] = ["x".join(joined[place + 1 : place + 3])]
            break
    return joined


def device(name: str) -> str:
    """What ``--device`` says, as argparse takes it."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise argparse.ArgumentTypeError(f"{name!r} cannot be used here: {reason}") from None
    return name
