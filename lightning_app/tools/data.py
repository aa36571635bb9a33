"""``contextzoo data check`` and ``contextzoo data stats``: a dataset's faults and figures, before any training."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

import torch
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from lightning_app.app import trust
from lightning_app.app.arguments import with_config_paths
from lightning_app.app.parser_errors import explain
from lightning_app.data import FileDataModule, SegmentationDataModule
from lightning_app.data.images import BadFile, Header
from lightning_app.data.semantic.check import Finding, check, counts
from lightning_app.tasks.semantic.losses import balanced_weights, log_frequency_weights
from lightning_app.util.errors import InputError, suggest

USAGE = """usage: contextzoo data check|stats --data CLASS [--data.ARGUMENT VALUE ...] [-c NAME or FILE]

  check  read every file and name all that is wrong (exit status 1 if any of it is fatal)
  stats  class shares, suggested class weights, image sizes

contextzoo data check --data CamVid --data.root data/camvid --data.test_split val
--data.help CLASS lists the arguments of a dataset"""


def main(args: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status (0 fine, 1 problems found)."""
    args = list(sys.argv[1:] if args is None else args)
    verbs = {"check": run_check, "stats": run_stats}
    if not args or {"-h", "--help"} & set(args):
        print(USAGE)
        return 0
    if args[0] not in verbs:
        raise InputError(f'Unknown command "data {args[0]}".{suggest(args[0], verbs, cutoff=0.5)} (check, stats)')
    return verbs[args[0]](_datamodule(args[1:]))


class _Parser(LightningArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(explain(message, list(self._option_string_actions))) from ex


def _datamodule(args: list[str]) -> SegmentationDataModule:
    trusted = trust.OPTION in args
    args, files = with_config_paths([arg for arg in args if arg != trust.OPTION])
    parser = _Parser(prog="contextzoo data")
    parser.add_argument("-c", "--config", action="config")
    parser.add_lightning_class_args(SegmentationDataModule, "data", subclass_mode=True, required=True)
    with trust.imports(files, args, trust=trusted):
        data = parser.instantiate_classes(parser.parse_args(args)).data
    assert isinstance(data, SegmentationDataModule)
    return data


def run_check(data: SegmentationDataModule) -> int:
    """Print what is wrong; 1 if any of it would stop a training or make its score worthless."""
    if not isinstance(data, FileDataModule):
        print(f"{data.facts.name} is made on the fly: no files to check.")
        return 0
    findings, found = check(data), counts(data)
    console = Console()
    groups = [*dict.fromkeys(data.splits.values()), *dict.fromkeys(each.split for each in findings)]
    for split in dict.fromkeys(groups):
        mine = sorted((finding for finding in findings if finding.split == split), key=lambda each: not each.fatal)
        title = f"{split}:"
        if split in found:
            images, masks = found[split]
            official = data.facts.splits.get(split, images)
            title += f" {images} images, {masks} masks."
            title += f" The official split has {official}." if official != images else ""
            title += "" if any(finding.fatal for finding in mine) else " All usable."
        if not console.is_terminal:
            print(title)
            for finding in mine:
                print(f"  {_weight(finding)}: {finding}", *[finding.fix] * bool(finding.fix))
            continue
        console.print(title, highlight=False)
        table = Table("", "problem", "files", "fix")
        for finding in mine:
            count = f"{len(finding.files)}: " if finding.files else ""
            weight = f"[red]{_weight(finding)}" if finding.fatal else _weight(finding)
            table.add_row(weight, *map(escape, (finding.problem, count + finding.names, finding.fix)))
        if mine:
            console.print(table)
    fatal = sum(finding.fatal for finding in findings)
    if findings:
        print(f"{fatal} fatal, {len(findings) - fatal} harmless")
    return int(fatal > 0)


def _weight(finding: Finding) -> str:
    return "fatal" if finding.fatal else "harmless"


def run_stats(data: SegmentationDataModule) -> int:
    """Print class shares, suggested weights and image sizes of the training split; 1 if some of it is unreadable."""
    faults: list[str] = []
    sizes: Counter[tuple[int, int]] = Counter()
    if isinstance(data, FileDataModule):
        pixels, bad = data.label_counts_and_faults()
        headers = data.image_headers("train").values()
        faults = [str(each) for each in (*bad, *headers) if isinstance(each, BadFile)]
        sizes.update(each.size for each in headers if isinstance(each, Header))
        print(*faults, sep="\n", end="\n" * bool(faults), file=sys.stderr)
    else:
        pixels = data.label_counts()
    known = pixels[: data.num_classes]
    if not known.any():
        raise InputError(f"{data.facts.name}: no labelled pixel in the training split. (contextzoo data check)")
    gentle, balanced = log_frequency_weights(torch.from_numpy(known)), balanced_weights(torch.from_numpy(known))
    rows = [
        (name, str(count), f"{100 * count / known.sum():.2f}", f"{gentle[i]:.3f}", f"{balanced[i]:.3f}")
        for i, (name, count) in enumerate(zip(data.class_names, known, strict=True))
    ]
    titles = ("class", "pixels", "share %", "log_frequency", "balanced")
    console = Console()
    if console.is_terminal:
        table = Table(*(Column(title, justify="left" if title == "class" else "right") for title in titles))
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        for row in (titles, *rows):
            print("\t".join(row))
    print(f"ignored: {100 * pixels[data.ignore_index] / pixels.sum():.2f} % of {pixels.sum()} pixels")
    if sizes:
        common = ", ".join(f"{width}x{height} ({count})" for (height, width), count in sizes.most_common(5))
        rest = f" and {len(sizes) - 5} more" if len(sizes) > 5 else ""
        heights, widths = zip(*sizes, strict=True)
        print(f"image sizes: {common}{rest}")
        print(f"width {min(widths)} to {max(widths)}, height {min(heights)} to {max(heights)}")
    if faults:
        print(f"{len(faults)} files left out (contextzoo data check)", file=sys.stderr)
    return int(bool(faults))
