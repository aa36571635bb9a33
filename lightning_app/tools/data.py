"""``contextzoo data check`` and ``contextzoo data stats``: a dataset's faults and figures, before any training."""

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from typing import NoReturn

from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.text import Text

import lightning_app.data
from lightning_app.app import trust
from lightning_app.app.arguments import with_config_paths
from lightning_app.app.parser_errors import explain
from lightning_app.data.base import DataModule
from lightning_app.data.findings import Finding
from lightning_app.tools import data_import
from lightning_app.util.errors import InputError, suggest
from lightning_app.util.tables import print_table

USAGE = """usage: contextzoo data check|stats --data CLASS [--data.ARGUMENT VALUE ...] [-c NAME or FILE]
       contextzoo data import FOLDER --out DIR

  check   read every file and name all that is wrong (exit status 1 if any of it is fatal)
  stats   what there is of each class: shares and suggested weights, or objects and their sizes; image sizes
  import  exports of CVAT, Label Studio, Roboflow, LabelMe and YOLO

contextzoo data check --data CamVid --data.root data/camvid --data.test_split val
--data.help CLASS lists the arguments of a dataset"""


def main(args: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status (0 fine, 1 problems found)."""
    args = list(sys.argv[1:] if args is None else args)
    verbs = {"check": run_check, "stats": run_stats}
    if not args or (args[0] != "import" and {"-h", "--help"} & set(args)):
        print(USAGE)
        return 0
    if args[0] == "import":
        return data_import.main(args[1:])
    if args[0] not in verbs:
        close = suggest(args[0], [*verbs, "import"], cutoff=0.5)
        raise InputError(f'Unknown command "data {args[0]}".{close} (check, stats, import)')
    return verbs[args[0]](_datamodule(args[1:]))


CHOICES = {"data": DataModule}


class _Parser(LightningArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(explain(message, list(self._option_string_actions), CHOICES)) from ex


def _datamodule(args: list[str]) -> DataModule:
    trusted = trust.OPTION in args
    args, files = with_config_paths([arg for arg in args if arg != trust.OPTION])
    for module in pkgutil.walk_packages(lightning_app.data.__path__, f"{lightning_app.data.__name__}."):
        importlib.import_module(module.name)  # so that the datamodules of all tasks are known by their names
    parser = _Parser(prog="contextzoo data")
    parser.add_argument("-c", "--config", action="config")
    parser.add_lightning_class_args(DataModule, "data", subclass_mode=True, required=True)
    with trust.imports(files, args, CHOICES.values(), trust=trusted):
        data = parser.instantiate_classes(parser.parse_args(args)).data
    assert isinstance(data, DataModule)
    return data


def run_check(data: DataModule) -> int:
    """Print what is wrong; 1 if any of it would stop a training or make its score worthless."""
    checked = data.check()
    if not checked.counts and not checked.findings:
        print(f"{type(data).__name__} is made on the fly: no files to check.")
        return 0
    findings = checked.findings
    console = Console()
    for split in dict.fromkeys([*checked.counts, *(each.split for each in findings)]):
        mine = sorted((finding for finding in findings if finding.split == split), key=lambda each: not each.fatal)
        title = f"{split}:"
        if split in checked.counts:
            title += f" {checked.counts[split]}"
            title += "" if any(finding.fatal for finding in mine) else " All usable."
        if not console.is_terminal:
            print(title)
            for finding in mine:
                print(f"  {_weight(finding)}: {finding}", *[finding.fix] * bool(finding.fix))
            continue
        console.print(title, highlight=False, markup=False)
        if mine:
            print_table(("", "problem", "files", "fix"), map(_cells, mine))
    fatal = sum(finding.fatal for finding in findings)
    if findings:
        print(f"{fatal} fatal, {len(findings) - fatal} harmless")
    return int(fatal > 0)


def _cells(finding: Finding) -> tuple[str | Text, ...]:
    count = f"{len(finding.files)}: " if finding.files else ""
    weight = Text(_weight(finding), style="red" if finding.fatal else "")
    return weight, finding.problem, count + finding.names, finding.fix


def _weight(finding: Finding) -> str:
    return "fatal" if finding.fatal else "harmless"


def run_stats(data: DataModule) -> int:
    """Print what there is of each class in the training split; 1 if some of it is unreadable."""
    found = data.statistics()
    print(*found.faults, sep="\n", end="\n" * bool(found.faults), file=sys.stderr)
    if Console().is_terminal:
        print_table(found.columns, found.rows, right=found.columns[1:])
    else:
        for row in (found.columns, *found.rows):
            print("\t".join(row))
    print(*found.lines, sep="\n")
    if found.faults:
        print(f"{len(found.faults)} files left out (contextzoo data check)", file=sys.stderr)
    return int(bool(found.faults))
