"""``contextzoo explain``: where the answer at one pixel of a photograph comes from."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_app.tasks.explain import BYS, Explanation, explain
from lightning_app.tools.infer import device
from lightning_app.tools.parser import Parser
from lightning_app.util.files import check_folder, replacing
from lightning_app.weights.load import load


def main(args: Sequence[str]) -> int:
    """Explain one pixel."""
    typed = _parser().parse_args(args)
    check_folder(typed.out)
    network = load(typed.weights, device=typed.device)
    found = explain(network, typed.photo, typed.at, typed.by)
    if typed.by == "auto" and found.by == "gradient":
        print(f"No block of {typed.weights} says where it looks: this is the gradient's reach", file=sys.stderr)
    x, y = found.at
    target = typed.out / f"{typed.photo.stem}_{x}_{y}.jpg"
    found.save(target)
    _write_json(found, typed, target.with_suffix(".json"))
    print("\n".join([f"{typed.photo} at {x},{y}: {found.answer} -> {target}", *(f"  {line}" for line in found.lines)]))
    return 0


def _write_json(found: Explanation, typed: argparse.Namespace, target: Path) -> None:
    content = {
        "image": str(typed.photo),
        "weights": str(typed.weights),
        "at": found.at,
        "answer": found.answer,
        "by": found.by,
        "views": [
            {"name": view.name, "kind": view.kind, "grid": view.weights.shape, "box": view.box}
            | ({} if view.kind == "gate" else {"half_within": view.within(0.5), "90_within": view.within(0.9)})
            for view in found.views
        ],
    }
    with replacing(target) as path:
        path.write_text(json.dumps(content, indent=1))


def _point(text: str) -> tuple[int, int]:
    x, comma, y = text.partition(",")
    if not (comma and x.strip().isdecimal() and y.strip().isdecimal()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no point: give x,y in pixels from the upper left, such as 120,80"
        )
    return int(x), int(y)


def _parser() -> Parser:
    parser = Parser(
        prog="contextzoo explain",
        description="Draw where the answer at one pixel comes from: the weights that the network's blocks give to the "
        "positions of their map, or how far the gradient reaches, which any network has.",
        epilog="example: contextzoo explain street.jpg --weights ccnet_r50-d8_cityscapes-512x1024_40k --at 640,300",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("photo", type=Path, metavar="PHOTO")
    add("--weights", required=True, metavar="ID|PATH", help="of the zoo; a run's name or folder, last, best; or a file")
    add("--at", required=True, type=_point, metavar="X,Y", help="the pixel, counted from 0 in the upper left corner")
    add("--by", choices=BYS, default="auto", help="default: auto, attention where a block says where it looks")
    add("--out", type=Path, default=Path("explained"), metavar="DIR", help="default: explained")
    add("--device", type=device, default="auto", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    return parser
