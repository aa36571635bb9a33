"""How heads of one sweep stand noise, JPEG and blur: the counts of each validation image for docs/claims.md, claim (g).

    python scripts/robustness.py runs/sweep/camvid_frozen --heads fcn nonlocal_net --every 3

The runs must share one frozen backbone, whose features are computed once for each image and disturbance. Writes
docs/results/claims/disturbed/KIND-STRENGTH.npz; what is there already is kept. python scripts/claims.py makes the page.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from lightning_app.tasks.semantic.task import SegmentationTask
from lightning_app.tools.sweep_counts import Images, SweepCounts
from lightning_app.tools.sweep_images import datamodule
from lightning_app.tools.sweep_result import BEST
from lightning_app.util.errors import InputError
from lightning_app.weights.checkpoint import read_config

FOLDER: Final = Path("docs/results/claims/disturbed")
KINDS: Final[Mapping[str, tuple[Sequence[int], Callable[[Tensor, int], Tensor]]]] = {
    "none": ((0,), lambda image, _: image),
    "noise": ((10, 20, 40), lambda image, sigma: _noisy(image, sigma)),  # standard deviation in grey levels of 255
    "jpeg": ((30, 15, 7), lambda image, quality: F.jpeg(image, quality)),
    "blur": ((1, 2, 4), lambda image, sigma: F.gaussian_blur(image, [6 * sigma + 1] * 2, [float(sigma)] * 2)),
}


def main(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Count what heads make of disturbed images.", allow_abbrev=False)
    parser.add_argument("sweep", type=Path, metavar="FOLDER", help="as given to contextzoo sweep --out")
    parser.add_argument("--heads", nargs="+", required=True, metavar="SLUG")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th validation image; default 1")
    options = parser.parse_args(args)
    try:
        runs = {name: options.sweep / name for name in _names(options.sweep, options.heads)}
        tasks = {name: SegmentationTask.load_from_checkpoint(run / BEST).eval() for name, run in runs.items()}
        _check_shared(tasks)
        data = datamodule(read_config(next(iter(runs.values())) / BEST)["data"])
        for kind, (strengths, _) in KINDS.items():
            for strength in strengths:
                path = FOLDER / f"{kind}-{strength}.npz"
                if not path.is_file():
                    count(tasks, data, kind, strength, options.every).write(path)
                    print(f"Wrote {path}", flush=True)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


@torch.inference_mode()
def count(tasks: Mapping[str, SegmentationTask], data: object, kind: str, strength: int, every: int) -> SweepCounts:
    """What each network makes of each N-th validation image, disturbed in this way."""
    dataset = data.dataset("val")  # type: ignore[attr-defined]
    _, disturb = KINDS[kind]
    first = next(iter(tasks.values()))
    names, rows = [], {name: [] for name in tasks}  # type: ignore[var-annotated]
    for index in range(0, len(dataset), every):
        sample = dataset[index]
        image = disturb(sample["image"], strength).unsqueeze(0) / 255
        target = sample["mask"].long()
        features = first.network.features(image)
        labelled = target != first.ignore_index
        truth = target[labelled]
        names.append(sample["name"])
        for name, task in tasks.items():
            predicted = task.network.head.at(features, tuple(target.shape)).argmax(1)[0][labelled]
            parts = (truth, predicted, truth[truth == predicted])
            rows[name].append([np.bincount(part.numpy(), minlength=len(task.class_names)) for part in parts])
    counted = {name: np.array(each).swapaxes(0, 1) for name, each in rows.items()}
    return SweepCounts.of(
        (name.rpartition("-")[0], int(name.rpartition("-")[2]), Images(tuple(names), *each))
        for name, each in counted.items()
    )


def _noisy(image: Tensor, sigma: int) -> Tensor:
    """Gaussian noise, drawn alike for every network: its seed is the image's own sum."""
    dice = torch.Generator().manual_seed(int(image.sum()))
    noise = torch.randn(image.shape, generator=dice) * sigma
    return (image + noise).round().clamp(0, 255).to(torch.uint8)


def _names(sweep: Path, heads: Sequence[str]) -> list[str]:
    names = [path.parent.parent.name for path in sorted(sweep.glob(f"*/{BEST}"))]
    found = [name for name in names if name.rpartition("-")[0] in heads]
    if missing := [head for head in heads if not any(name.rpartition("-")[0] == head for name in found)]:
        raise InputError(f"{sweep} holds no training of {', '.join(missing)}")
    return found


def _check_shared(tasks: Mapping[str, SegmentationTask]) -> None:
    first, *others = (task.network.backbone.state_dict() for task in tasks.values())
    for other in others:
        if not all(torch.equal(tensor, first[name]) for name, tensor in other.items()):
            raise InputError("These runs do not share one frozen backbone: give those of one sweep")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
