"""``contextzoo export``: weights as a file that runs without this program."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_app.export.export import FORMATS, export
from lightning_app.export.graphs import Mismatch
from lightning_app.tools.parser import Parser
from lightning_app.weights.load import load


def main(args: Sequence[str]) -> int:
    """Write the file; 1 where it would give something else than the network, and is not kept."""
    typed = _parse(args)
    network = load(typed.weights)
    out = typed.out or Path(f"{network.info.name}{FORMATS[typed.to].SUFFIX}")
    try:
        done = export(network, out, to=typed.to, output=typed.output, size=typed.size, half=typed.half, int8=typed.int8)
    except Mismatch as error:
        print(f"{out} is not kept. {error}", file=sys.stderr)
        return 1
    print(done)
    return 0


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="contextzoo export",
        description="Write weights as a file that runs without this program. Photographs of any number, height and "
        "width in 0..1 go in: normalisation is inside. The file is run against the network at several sizes before it "
        "is kept; a difference is an error, and nothing is kept.",
        epilog="example: contextzoo export ccnet_r50-d8_cityscapes-512x1024_40k --to onnx --output classes",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("weights", metavar="ID|FILE|RUN", help="of the zoo (contextzoo zoo list); a run's name, last, best; or a file")
    add("--to", required=True, choices=FORMATS, help="onnxruntime; torch.export; compiled by AOTInductor, for this CPU")
    add("--out", type=Path, metavar="FILE", help="default: the weights' name, here")
    add(
        "--output",
        metavar="WHAT",
        help="of a segmentor logits (the default) or classes; of a pose estimator maps (the default) or keypoints",
    )
    add("--size", type=_size, metavar="HxW", help="take images of this size alone; default: any")
    small = parser.add_mutually_exclusive_group()
    small.add_argument("--half", action="store_true", help="weights and arithmetic in half precision")
    small.add_argument(
        "--int8", type=Path, metavar="PHOTOS", help="convolutions in 8 bits, by a folder of photographs; ONNX alone"
    )
    return parser.parse_args(args)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found or "0" in found.groups():
        raise argparse.ArgumentTypeError(f"{text!r}: give HEIGHTxWIDTH, such as 512x1024")
    return int(found[1]), int(found[2])
