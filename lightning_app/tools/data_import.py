"""``contextzoo data import``: what labelling tools export, made into what the datamodules read."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_app.data.labels.reading import FORMATS, read
from lightning_app.data.labels.writing import write
from lightning_app.tools.parser import Parser


def main(args: Sequence[str]) -> int:
    """Import one export; 0."""
    options = _parse(args)
    format, export = read(options.source.expanduser(), options.format)
    out = options.out.expanduser()
    files = write(export, out, masks=options.masks, val_share=options.val_share)
    objects = sum(len(found) for file in files.values() for found in file.annotations.values())
    splits = ", ".join(f"{len(file.images)} {split}" for split, file in sorted(files.items()))
    print(f"{options.source} ({format}): {splits}; {objects} objects of {', '.join(export.names) or 'no class'}")
    for what, count in export.left_out.items():
        print(f"left out: {count} {what}", file=sys.stderr)
    kind = "Folder" if options.masks else "COCOInstances"
    print(f"{out}: contextzoo data check --data {kind} --data.root {out}")
    return 0


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="contextzoo data import",
        description="Read an export and write DIR/annotations/*.json with the pictures beside it, which COCOInstances "
        "reads; or with --masks DIR/images, DIR/masks and DIR/classes.txt, which Folder reads.",
        epilog="example: contextzoo data import export --out data/cells. Splits are those of the export (train, val or "
        "valid, test); pictures without one go to train or val by their names.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("source", type=Path, metavar="FOLDER|FILE", help="of CVAT, Label Studio or Roboflow (COCO), LabelMe, or YOLO")
    add("--out", type=Path, required=True, metavar="DIR", help="where to: a folder that is not there or empty")
    add("--format", choices=FORMATS, help="default: found out")
    add("--masks", action="store_true", help="class masks in place of objects; 0 is the background")
    add("--val-share", type=_share, default=0.2, metavar="SHARE", help="of pictures without a split; default: 0.2")
    return parser.parse_args(args)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return share
