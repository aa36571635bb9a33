"""Images per second and core of the training pipeline, against torchvision's ordinary chain in the same run.

    python benchmarks/data.py [--root CAMVID] [--crop 352] [--rounds 5] [--images 40]

One thread, CPU time (so that a busy machine distorts less), rounds of the contestants interleaved, medians. Without a
root it draws pictures of CamVid's size, which as PNG decode somewhat faster than photographs.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torchvision import tv_tensors
from torchvision.transforms import v2

from lightning_app.data import CamVid
from lightning_app.data.semantic.file_dataset import FileDataset
from lightning_app.data.transforms import PADDING

SIZE = (360, 480)


def draw(root: Path, count: int) -> None:
    """CamVid's layout with smooth colours and patches of classes."""
    dice = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in (split, f"{split}annot"):
            (root / kind).mkdir()
        for i in range(count):
            colours = Image.fromarray(dice.integers(256, size=(36, 48, 3), dtype=np.uint8))
            classes = Image.fromarray(dice.integers(12, size=(9, 12), dtype=np.uint8))
            colours.resize(SIZE[::-1], Image.Resampling.BICUBIC).save(root / split / f"{i}.png")
            classes.resize(SIZE[::-1], Image.Resampling.NEAREST).save(root / f"{split}annot" / f"{i}.png")


def ordinary(crop: int, *, jitter: bool) -> v2.Compose:
    """The chain that the documentation suggests, for the same augmentation."""
    fill = {tv_tensors.Image: PADDING, tv_tensors.Mask: 255}
    steps = [
        v2.ScaleJitter(SIZE, (0.5, 2.0)),
        v2.RandomCrop(crop, pad_if_needed=True, fill=fill),
        v2.RandomHorizontalFlip(),
    ]
    return v2.Compose([*steps, v2.ColorJitter(0.5, 0.5, 0.5, 0.05)] if jitter else steps)


def contestants(root: Path, crop: int) -> dict[str, tuple[FileDataset, FileDataset]]:
    """Name -> the dataset with and without a decoded cache."""

    def dataset(cache: bool, transform: Any = None, **options: Any) -> FileDataset:
        module = CamVid(root, crop_size=(crop, crop), cache=cache, **options)
        module.augmentation = transform or module.augmentation
        return module.make_dataset("train")

    def both(transform: Any = None, **options: Any) -> tuple[FileDataset, FileDataset]:
        return dataset(True, transform, **options), dataset(False, transform, **options)

    return {
        "ordinary v2 chain": both(ordinary(crop, jitter=True)),
        "ordinary, without colour": both(ordinary(crop, jitter=False)),
        "this pipeline": both(),
        "this, without colour": both(photometric=0.0),
        "this, without cat_max_ratio": both(cat_max_ratio=1.0),
    }


def milliseconds(dataset: FileDataset, epoch: int, images: int) -> float:
    """CPU time per image."""
    before = time.process_time()
    for i in range(images):
        dataset[epoch, (epoch * images + i) % len(dataset)]
    return 1000 * (time.process_time() - before) / images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="CamVid's folder; none = drawn pictures")
    parser.add_argument("--crop", type=int, default=352)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=40, help="per round and contestant")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.root is None:
            draw(Path(folder), 40)
        datasets = contestants(options.root or Path(folder), options.crop)
        times: dict[tuple[str, int], list[float]] = {(name, kind): [] for name in datasets for kind in (0, 1)}
        for turn in range(options.rounds + 1):
            for name, kind in times:
                cost = milliseconds(datasets[name][kind], turn, options.images)
                if turn:  # the first round warms up
                    times[name, kind].append(cost)
    medians = {key: statistics.median(costs) for key, costs in times.items()}
    base = medians[next(iter(datasets)), 0]
    table = Table("per image and core", "ms", "images/s", "faster", "ms with decoding", "images/s")
    for name in datasets:
        cached, decoding = medians[name, 0], medians[name, 1]
        figures = (f"{cached:.2f}", f"{1000 / cached:.0f}", f"{base / cached:.1f}x")
        table.add_row(name, *figures, f"{decoding:.2f}", f"{1000 / decoding:.0f}")
    Console(width=120).print(table)
    print(f"{torch.__version__=} crop {options.crop}, {SIZE[1]}x{SIZE[0]}, {options.rounds} rounds of {options.images}")


if __name__ == "__main__":
    main()
