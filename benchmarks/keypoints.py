"""Training crops per second and core: cut out, mirrored, turned and scaled, with and without reading the photographs.

    OMP_NUM_THREADS=1 python benchmarks/keypoints.py --root DIR [--size 256 192] [--rounds 5]

DIR is a set of keypoints in COCO's layout. One thread, CPU time (so that a busy machine distorts less), the median of
some rounds over all crops of the training split.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from lightning_app.data import COCOKeypoints


def crops_per_second(data: COCOKeypoints, rounds: int) -> float:
    """The median over rounds; each has dice of its own."""
    dataset = data.dataset("train")
    speeds = []
    for epoch in range(rounds):
        started = time.process_time()
        for index in range(len(dataset)):
            dataset[epoch, index]
        speeds.append(len(dataset) / (time.process_time() - started))
    return statistics.median(speeds)


def main() -> None:
    """Print the figures of two ways."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=2, default=[256, 192], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for cache, words in ((False, "read, decode, cut out"), (True, "cut out of decoded photographs")):
        data = COCOKeypoints(given.root, cache=cache)
        data.follow(tuple(given.size), udp=False)
        crops_per_second(data, 1)  # reads what is to be in memory
        print(f"{words}: {crops_per_second(data, given.rounds):.0f} crops/s a core")


if __name__ == "__main__":
    main()
