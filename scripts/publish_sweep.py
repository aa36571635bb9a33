"""Publish the best seed of each head of a sweep, or with --seed that one, whose figure nobody has chosen.

    python scripts/publish_sweep.py runs/sweep/camvid_cpu [words of contextzoo zoo publish, such as --half]

Ids are HEAD_BACKBONE_DATASET-CROP_STEPS, as in ccnet_tf_efficientnet_lite0_camvid-240x320_180. The figure is measured
anew in single precision where training scored in half. With --replace, weights of the same head on the same data that
did worse leave the zoo, and their ids answer with the best. What is published already with the same weights is left
alone, so that the script can be run again; other weights under the same id stop it.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import zoo
from lightning_app.app.cli import main as contextzoo
from lightning_app.tools import publish
from lightning_app.util.errors import InputError
from lightning_app.weights.checkpoint import read_checkpoint, read_config
from lightning_app.weights.load import find
from lightning_app.weights.published import SHIPS, dataset_of, is_known, read_published
from zoo import writing
from zoo.entry import SHIPPED

RECIPES = Path(__file__).parents[1] / "configs"


def main(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Publish a seed of each head of a sweep.", allow_abbrev=False)
    parser.add_argument("sweep", type=Path, metavar="FOLDER", help="as given to contextzoo sweep --out")
    parser.add_argument("--seed", type=int, metavar="N", help="this one; default the best on the validation split")
    parser.add_argument("--replace", action="store_true", help="what ships of the head and does worse leaves the zoo")
    options, words = parser.parse_known_args(args)
    try:
        for result in best(options.sweep, options.seed):
            checkpoint = options.sweep / f"{result['head']}-{result['seed']}" / result["checkpoint"]
            id = id_of(result, checkpoint)
            if is_known(id):
                if not is_same(checkpoint, id):
                    raise InputError(f"{id} is taken by other weights: remove its entry and its folder first")
                print(f"{id}: published already")
                continue
            in_full = read_config(checkpoint)["trainer"]["precision"] in (None, "32-true")
            if not in_full and contextzoo(["test", "--ckpt_path", str(checkpoint), "--data.test_split", "val"]):
                return 1
            publish.main([str(checkpoint), "--id", id, *words])
            if options.replace:
                replace_worse(id)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def best(sweep: Path, seed: int | None) -> list[dict[str, Any]]:
    """The result with the highest validation mIoU of each head, or of one seed."""
    chosen: dict[str, dict[str, Any]] = {}
    for path in sorted(sweep.glob("*/result.json")):
        result = json.loads(path.read_text())
        if "error" in result or seed not in (None, result["seed"]):
            continue
        if result["mIoU"] > chosen.get(result["head"], {"mIoU": -1})["mIoU"]:
            chosen[result["head"]] = result
    if not chosen:
        raise InputError(f"{sweep} holds no such results: give the folder of a sweep, such as runs/sweep/camvid_cpu")
    return list(chosen.values())


def replace_worse(id: str) -> None:
    """What ships of the same head and dataset, does worse, and is no recipe's start, leaves the zoo."""
    ours = zoo.get(id)
    recipes = "".join(path.read_text() for path in RECIPES.rglob("*.yaml"))
    same = zoo.list_entries(task=ours.task, head=ours.head, dataset=ours.dataset)
    best = max((entry for entry in same if entry.url.startswith(SHIPPED)), key=lambda entry: entry.figure)
    for entry in same:
        if entry.url.startswith(SHIPPED) and entry.figure < ours.figure and entry.id not in recipes:
            writing.replace(entry.id, best.id)
            shutil.rmtree(SHIPS / entry.id)
            print(f"{entry.id} has left the zoo")


def id_of(result: dict[str, Any], checkpoint: Path) -> str:
    description, _ = read_checkpoint(checkpoint)
    backbone = description.model["backbone"]
    name = (backbone.get("init_args") or {}).get("name") or backbone["class_path"].rpartition(".")[2]
    dataset = dataset_of(description)
    data = dataset.slug if dataset else description.data.name
    height, width = result["image_size"]
    return f"{result['head']}_{name}_{data}-{height}x{width}_{result['steps']}".lower()


def is_same(checkpoint: Path, id: str) -> bool:
    """Whether the published weights are the checkpoint's, in single precision or in half."""
    _, ours = read_checkpoint(checkpoint)
    _, theirs = read_published(find(id))
    return ours.keys() == theirs.keys() and all(
        torch.equal(theirs[name], each) or torch.equal(theirs[name], each.half().float()) for name, each in ours.items()
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
