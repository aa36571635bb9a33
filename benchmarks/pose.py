"""Decoding of keypoints against the published rules, and a pose network in bf16 against fp32, on one thread.

    pip install opencv-python-headless                     # published code blurs with it
    OMP_NUM_THREADS=1 python benchmarks/pose.py [--persons 1000] [--batch 32] [--repeats 5] [--weights ID --root DIR]

CPU time of interleaved pairs, so that a busy machine distorts less; the ratio is that of the fastest of each. The
decoders see drawn points under noise, ResNet-50 random weights: time hangs on neither. With --weights of a trained pose
network and the --root that it was trained on, the keypoints of bf16 are held against those of fp32.
"""

import argparse
import copy
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pose_decoding
import torch
from torch import Tensor

import contextzoo as cz
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.data import COCOKeypoints
from lightning_app.heads.simple_baseline import SimpleBaseline
from lightning_app.tasks.pose.codec import KINDS, Codec, Kind
from lightning_app.tasks.pose.network import PoseEstimator

JOINTS = 17
SIZE = (256, 192)
SURE = 0.2  # score from which on a keypoint counts in its person's
NEAR = 0.5


def fastest(first: Callable[[], object], second: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Seconds of each, the fastest of interleaved calls."""
    times: list[list[float]] = [[], []]
    first(), second()
    for _ in range(repeats):
        for call, taken in zip((first, second), times, strict=True):
            started = time.process_time()
            call()
            taken.append(time.process_time() - started)
    return min(times[0]), min(times[1])


def decoding(kind: Kind, persons: int, repeats: int) -> str:
    """The published rules person by person against ours for all."""
    codec = Codec(kind, SIZE)
    points = torch.rand(persons, JOINTS, 2) * torch.tensor([SIZE[1], SIZE[0]])
    maps, _ = codec.encode(points, torch.ones(persons, JOINTS))
    maps += 0.02 * torch.rand_like(maps)
    each = maps.numpy()
    rule = getattr(pose_decoding, kind)
    theirs, ours = fastest(lambda: np.stack([rule(person) for person in each]), lambda: codec.decode(maps), repeats)
    scale = np.array([SIZE[side] / (codec.maps[side] - codec.udp) for side in (1, 0)])
    apart = np.abs(np.stack([rule(person) for person in each]) * scale - codec.decode(maps)[0].numpy()).max()
    speed = maps.numel() * 4 / ours / 1e9
    return (
        f"decode {kind}: {theirs / ours:.1f}x ({theirs * 1e3:.0f} -> {ours * 1e3:.0f} ms for {persons} persons, "
        f"maps read at {speed:.1f} GB/s), largest difference {apart:.0e} px"
    )


def network(batch: int, repeats: int) -> str:
    """SimpleBaseline on ResNet-50, eager: fp32 against bf16 and channels last."""
    backbone = TimmBackbone("resnet50")
    plain = PoseEstimator(backbone, SimpleBaseline(backbone.channels, JOINTS), Codec("msra", SIZE)).eval()
    fast = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    fast.channels_last = True
    crops = torch.rand(batch, 3, *SIZE)
    before, after = fastest(lambda: plain(crops), lambda: in_bf16(fast, crops), repeats)
    return f"network R50 {SIZE[0]} x {SIZE[1]}, batch {batch}: {before / after:.2f}x ({before:.2f} -> {after:.2f} s)"


def in_bf16(model: PoseEstimator, crops: Tensor) -> Tensor:
    """Maps by bf16 autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        return model(crops)


def agreement(weights: str, root: Path) -> str:
    """The share of a validation split's sure keypoints that bf16 finds where fp32 does."""
    plain = cz.load(weights).eval()
    fast = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    fast.channels_last = True
    codec: Codec = plain.codec
    data = COCOKeypoints(root)
    data.follow(codec.input_size, udp=codec.udp)
    dataset = data.dataset("val")
    near, sure = [], []
    for index in range(len(dataset)):
        crops = dataset[index].image / 255
        exact, scores = codec.decode(plain(crops))
        other, _ = codec.decode(in_bf16(fast, crops))
        near.append((exact - other).norm(dim=-1) <= NEAR)
        sure.append(scores > SURE)
    taken = torch.cat(near)[torch.cat(sure)]
    return (
        f"{weights} in bf16: {taken.float().mean():.2%} of {len(taken)} keypoints with a score above {SURE} within "
        f"{NEAR} px of fp32's"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--persons", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--weights")
    parser.add_argument("--root", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cv2.setNumThreads(1)
    load = ", ".join(f"{each:.2f}" for each in os.getloadavg())
    print(f"one thread, {given.repeats} pairs, load {load}, torch {torch.__version__}, OpenCV {cv2.__version__}")
    with torch.inference_mode():
        for kind in KINDS:
            print(decoding(kind, given.persons, given.repeats))
        print(network(given.batch, given.repeats))
        if given.weights is not None:
            print(agreement(given.weights, given.root))


if __name__ == "__main__":
    main()
