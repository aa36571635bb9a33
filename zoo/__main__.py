"""``python -m zoo``, also reached as ``contextzoo zoo``: list, best, show, download, verify, remove, where, check."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from zoo import cache, index, show
from zoo.entry import ZooEntry
from zoo.errors import ZooError, shown
from zoo.toml import suggest


class _Parser(argparse.ArgumentParser):
    """Errors in one line, with the closest name."""

    def error(self, message: str) -> NoReturn:
        raise ZooError(f"{shown(message, 400)} ({self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        choices = [str(each) for each in action.choices or ()]
        if choices and value not in choices:
            what = "command" if action.dest == "command" else action.option_strings[0]
            hint = suggest(str(value), choices)
            raise ZooError(f'Unknown {what} "{shown(value)}".{hint} Known: {", ".join(choices)}')


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 100")
    return value


def _count(text: str) -> float:
    """A positive number such as 30M."""
    factor = {"K": 1e3, "M": 1e6, "G": 1e9}.get(text[-1:].upper(), 1)
    try:
        value = float(text if factor == 1 else text[:-1]) * factor
    except ValueError:
        value = -1
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number such as 30M")
    return value


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("an empty name; the folder here is .")
    return Path(text)


def _parser() -> _Parser:
    parser = _Parser(prog="contextzoo zoo", description="Weights for each head and dataset.", allow_abbrev=False)
    parser.set_defaults(run=lambda options: print(parser.format_help()), parser=parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], int], text: str) -> _Parser:
        each = commands.add_parser(run.__name__.strip("_"), help=text, description=text, allow_abbrev=False)
        each.set_defaults(run=run, parser=each)
        return each

    each = command(_list, "List the weights; tab-separated where the output is not a terminal.")
    each.add_argument("--task", help="such as semantic; default: every task")
    each.add_argument("--dataset", help="slug of a dataset, such as cityscapes")
    _filters(each)
    each.add_argument("--local", action="store_true", help="only those whose file is on this machine")
    each.add_argument("--sort", metavar="FIGURE", help="miou, miou-ms ..., params, gflop, memory or id")
    each.add_argument("--json", action="store_true", help="everything that is known of each, as JSON")
    each = command(_best, "Show which weights of a dataset no others beat in figure, parameters and GFLOP at once.")
    each.add_argument("--dataset", required=True, help="slug of a dataset, such as ade20k")
    _filters(each)
    each.add_argument("--plot", type=Path, metavar="FILE.png", help="draw them among all the others")
    command(_show, "Show all that is known of some weights.").add_argument("id")
    each = command(_download, "Download weights and check them.")
    each.add_argument("id", nargs="+")
    each.add_argument("--to", type=_folder, metavar="DIR", help="folder to put them in, instead of the cache")
    each = command(_verify, "Check the hashes of the weights on this machine, and of what was converted from them.")
    each.add_argument("id", nargs="*", help="only these, which must be here")
    each.add_argument("--all", action="store_true", help="all that are here, as without ids")
    command(_remove, "Delete downloaded weights.").add_argument("id", nargs="+")
    command(_where, "Print where weights lie; exit status 1 where they are not here.").add_argument("id")
    command(_check, "Check the index itself.")
    each = command(_publish, "Publish a checkpoint of your own (contextzoo zoo publish).")
    each.add_argument("checkpoint", nargs="?")
    each = command(_convert, "Convert a checkpoint of mmsegmentation's (contextzoo zoo convert).")
    each.add_argument("checkpoint", nargs="?")
    return parser


def _filters(parser: argparse.ArgumentParser) -> None:
    """The options that narrow a list."""
    add = parser.add_argument
    add("--head", help="slug of a head, such as ccnet")
    add("--backbone", help="short name such as r50-d8, or timm's such as resnet50c")
    add("--min-miou", type=_percent, metavar="PERCENT", help="at least this mIoU, single scale")
    add("--max-params", type=_count, metavar="N", help="at most so many parameters, such as 30M")
    add("--max-gflop", type=_count, metavar="N", help="at most so many GFLOP for one training crop")
    add("--licence", choices=("commercial",), help="only where all three licences allow commercial use")
    add(
        "--commercial",
        dest="licence",
        action="store_const",
        const="commercial",
        help="the same as --licence commercial",
    )


def _filtered(options: argparse.Namespace, **others: Any) -> list[ZooEntry]:
    """The entries that those options leave."""
    return index.list_entries(
        head=options.head,
        dataset=options.dataset,
        backbone=options.backbone,
        min_miou=options.min_miou,
        commercial=options.licence == "commercial",
        max_parameters=options.max_params,
        max_gflop=options.max_gflop,
        **others,
    )


def _best(options: argparse.Namespace) -> int:
    from zoo import best

    entries = _filtered(options)
    front = best.front(entries)
    if not front:
        print("None whose parameters and GFLOP are known and that pass these filters", file=sys.stderr)
        return 1
    show.print_best(front, len(entries))
    if options.plot:
        best.plot(front, entries, options.plot)
        print(f"Wrote {options.plot}")
    return 0


def _list(options: argparse.Namespace) -> int:
    entries = _filtered(options, task=options.task, local=options.local)
    if options.sort:
        show.sort_entries(entries, options.sort)
    if options.json:
        show.print_json(entries)
        return 0
    show.print_list(entries)
    if options.licence and not entries:
        print("None whose three licences all allow commercial use (contextzoo zoo show ID says why)", file=sys.stderr)
    return 0


def _show(options: argparse.Namespace) -> int:
    show.print_entry(index.get(options.id))
    return 0


def _download(options: argparse.Namespace) -> int:
    from zoo.download import fetch

    entries = [index.get(id) for id in options.id]
    for entry in entries:
        fetch(entry, options.to, say=print)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from zoo.copies import copy_of, intact

    if options.id and options.all:
        raise ZooError("verify takes ids or --all, not both")
    entries = [index.get(id) for id in options.id] or index.list_entries()
    good, corrupt, absent, copies = 0, [], [], []
    for entry in entries:
        path = cache.find(entry)
        if path and (beside := copy_of(path)) and not intact(beside):
            copies.append(beside.name)
        if path is None:
            absent.append(entry.id)
        elif all(cache.intact(each, at) for each, at in [(entry, path), *cache.find_shared(entry)]):
            good += 1
        else:
            corrupt.append(entry.id)
    if not options.id:
        absent = []
    found = [f"{good} ok"]
    found += [f"{len(corrupt)} CORRUPT {' '.join(corrupt)}"] if corrupt else []
    found += [f"{len(absent)} not here {' '.join(absent)}"] if absent else []
    found += [f"{len(copies)} CORRUPT {' '.join(copies)} (made anew at the next use)"] if copies else []
    print(", ".join(found))
    return 1 if corrupt or absent or copies else 0


def _remove(options: argparse.Namespace) -> int:
    for entry in [index.get(id) for id in options.id]:
        belongings = cache.belongings(entry)
        for path in belongings:
            path.unlink(missing_ok=True)
        print(f"{entry.id}: {'removed' if belongings else 'was not downloaded'}")
    return 0


def _where(options: argparse.Namespace) -> int:
    entry = index.get(options.id)
    path = cache.find(entry)
    if path is None:
        print(f"{entry.id} is not here; it would land at {cache.target(entry)}", file=sys.stderr)
        return 1
    print(path)
    return 0


def _check(options: argparse.Namespace) -> int:
    entries = index.check()
    print(f"{len(entries)} entries of {len(index.heads())} heads ok")
    return 0


def _publish(options: argparse.Namespace) -> int:
    raise ZooError("Publishing needs torch and the models: contextzoo zoo publish CKPT --id ID")


def _convert(options: argparse.Namespace) -> int:
    raise ZooError("Converting needs torch and the models: contextzoo zoo convert FILE --like ID")


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = _parser()
    try:
        options, unknown = parser.parse_known_args(args)
        if unknown and options.command not in ("publish", "convert"):
            flags = re.findall(r"--[a-z-]+", options.parser.format_usage())
            hint = suggest(unknown[0], flags)
            raise ZooError(f'Unknown argument "{shown(unknown[0])}".{hint} ({options.parser.prog} --help)')
        status = options.run(options) or 0
        sys.stdout.flush()
        return status
    except ZooError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"{shown(error.filename or 'Input or output')}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; the same command goes on where it stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
