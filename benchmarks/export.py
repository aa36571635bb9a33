"""Which head can be exported to which format, how fast each is against eager PyTorch, and what 8 bits cost.

    OMP_NUM_THREADS=1 python benchmarks/export.py table [HEAD ...] [--to onnx pt2 aoti] [--keep FILE] [--fixed H W]
    OMP_NUM_THREADS=1 python benchmarks/export.py table detectors poses [--to onnx pt2 aoti] [--keep FILE]
    OMP_NUM_THREADS=1 python benchmarks/export.py speed [ID ...] [--size 360 480] [--repeats 5]
    OMP_NUM_THREADS=1 python benchmarks/export.py int8 [ID ...] --data DIR

``table`` puts each head on a backbone of two convolutions, so that what is seen is the head, and prints rows of the
table of docs/export.md; arguments stand behind a colon, as in ocnet:variant=pyramid; ``detectors`` and ``poses`` stand
for each kind of these, small and random. What FILE has already is not done again; ``--fixed`` tries those that cannot
be at every size. ``speed`` interleaves the formats with eager, and prints the median of the ratios. ``int8`` calibrates
by CamVid's training images, and scores on the validation split in DIR.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from lightning_app.backbones.base import Backbone
from lightning_app.backbones.patchify import Patchify
from lightning_app.data.semantic.camvid import CamVid
from lightning_app.export import onnx
from lightning_app.export.export import FORMATS, export
from lightning_app.export.graphs import Mismatch
from lightning_app.heads.fcn import FCN
from lightning_app.registry import HEADS
from lightning_app.tasks.instance.network import InstanceSegmentor
from lightning_app.tasks.pose.codec import KINDS, Codec, Kind
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.tasks.semantic.inference import predict
from lightning_app.tasks.semantic.network import ModelInfo, Segmentor
from lightning_app.tools.bench_timing import device_name
from lightning_app.util.errors import InputError
from lightning_app.weights.load import load

DETECTORS = (
    "",
    "masks=false",
    "masks=false,cascade=true",
    "cascade=true",
    "pyramid=carafe",
    "pyramid=libra",
    "regions=groie",
    "mask_upsample=carafe",
)
SETS = {
    "detectors": [f"detector:{each}".rstrip(":") for each in DETECTORS],
    "poses": [f"pose:kind={each}" for each in KINDS],
}
NARROW = {"channels": 32, "block_channels": 32, "key_channels": 16, "fpn_channels": 16, "compressed": 16}
IDS = (
    "fcn_resnet10t_camvid-180x240_990",
    "gcnet_tf_efficientnet_lite0_camvid-240x320_180",
    "danet_tf_efficientnet_lite0_camvid-240x320_180",
)


def network(name: str) -> nn.Module:
    """A small one, in which nothing is zero that training would move."""
    torch.manual_seed(0)
    slug, _, typed = name.partition(":")
    given = {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in typed.split(",") if pair)}
    if slug in ("detector", "pose"):
        return (detector if slug == "detector" else pose)(**given)
    return segmentor(slug, **given)


class Halving(Backbone):
    """Levels of strides 4 and 8 that see little, so that in noise no two places are alike."""

    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.reductions, self.size_multiple = [16, 16], [4, 8], 8
        self.fine = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(images)
        return [fine, self.coarse(fine)]


def detector(**given: Any) -> InstanceSegmentor:
    """Mask R-CNN, which finds something in noise."""
    options: dict[str, Any] = {"channels": 16, "hidden": 32, "size": (128, 160)} | given
    made = InstanceSegmentor(Halving(), 3, **options).eval()
    rounds: Any = made.roi_heads if given.get("cascade") else [made.roi_heads]
    for heads in rounds:
        nn.init.normal_(heads.box_predictor.cls_score.weight)
    return made


def pose(kind: Kind) -> PoseEstimator:
    """Three keypoints by one of the codecs."""
    codec = Codec(kind, input_size=(96, 64))
    backbone = Patchify(16, patch=4, levels=1)
    return PoseEstimator(backbone, FCN(backbone.channels, 3 * codec.maps_per_point, channels=16), codec).eval()


def segmentor(slug: str, **given: Any) -> Segmentor:
    """A head on two convolutions."""
    backbone, cls = Patchify(16), HEADS[slug].cls
    known = signature(cls).parameters
    options: dict[str, Any] = {name: width for name, width in NARROW.items() if name in known} | given
    try:
        head: Any = cls(backbone.channels, 5, **options)
    except InputError:  # such as a width that its heads do not divide
        head = cls(backbone.channels, 5)
    for parameter in head.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.5)
    return Segmentor(backbone, head).eval()


def attempt(slug: str, to: str, size: tuple[int, int] | None) -> str:
    """The largest difference, or why not."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = export(network(slug), Path(folder) / f"head{FORMATS[to].SUFFIX}", to=to, size=size)
        except (InputError, Mismatch) as error:
            return str(error)
        return f"{max(check.difference for check in done.checks):.0e}"


def table(options: argparse.Namespace) -> None:
    """Try every head in every format."""
    found: dict[str, dict[str, str]] = json.loads(options.keep.read_text()) if options.keep.is_file() else {}
    for to in options.to:
        for slug in [each for name in options.names or HEADS for each in SETS.get(name, [name])]:
            if to not in found.setdefault(slug, {}):
                found[slug][to] = attempt(slug, to, options.fixed and (options.fixed[0], options.fixed[1]))
                print(slug, to, found[slug][to], flush=True)
                options.keep.write_text(json.dumps(found, indent=1))
    print(f"\n| head | {' | '.join(options.to)} |\n|{'---|' * (len(options.to) + 1)}")
    for slug, row in sorted(found.items()):
        print(f"| {slug} | {' | '.join(row.get(to, '') for to in options.to)} |")


def speed(options: argparse.Namespace) -> None:
    """Time every format of some weights."""
    torch.set_num_threads(1)
    height, width = options.size
    print(f"{height} x {width}, one thread of {device_name('cpu')}, {options.repeats} pairs, torch {torch.__version__}")
    images = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    for name in options.names or IDS:
        eager = load(name)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            for to in options.to:
                done = export(eager, Path(folder) / f"{to}{FORMATS[to].SUFFIX}", to=to)
                ratio, before, after = ratios(eager, FORMATS[to].load(done.path), images, options.repeats)
                print(f"{name} {to}: {ratio:.2f}x ({before * 1000:.0f} ms -> {after * 1000:.0f} ms)", flush=True)


def int8(options: argparse.Namespace) -> None:
    """Score the network and its file in 8 bits."""
    torch.set_num_threads(1)
    samples = CamVid(options.data).make_dataset("val")
    for name in options.names or IDS:
        eager = load(name)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            try:
                done = export(eager, Path(folder) / "small.onnx", int8=options.data / "train")
            except Mismatch as error:
                print(f"{name}: {error}", flush=True)
                continue
            size = done.path.stat().st_size / sum(4 * each.numel() for each in eager.state_dict().values())
            before, after = (miou(run, samples, eager.info) for run in (eager, onnx.load(done.path)))
        print(f"{name}: mIoU {before:.2f} -> {after:.2f} in 8 bits, {size:.0%} of the size, {done.agreement:.1%} alike")


def miou(run: Callable[[Tensor], Any], samples: Any, info: ModelInfo) -> float:
    """In per cent, over all of the samples, by the weights' protocol."""

    def logits(images: Tensor) -> Tensor:
        result = run(images)
        return result if isinstance(result, Tensor) else result[0]

    classes = info.outputs
    counts = torch.zeros(classes * classes, dtype=torch.long)
    for index in range(len(samples)):
        image, mask = samples[index]["image"][None].float() / 255, samples[index]["mask"].long()
        found = predict(logits, image, (mask.shape[0], mask.shape[1]), info.protocol)[0].argmax(0)
        known = mask < classes
        counts += (mask[known] * classes + found[known]).bincount(minlength=classes**2)
    table = counts.view(classes, classes).double()
    return float((table.diag() / (table.sum(0) + table.sum(1) - table.diag())).mean() * 100)


def ratios(
    eager: Callable[[Tensor], Any], exported: Callable[[Tensor], Any], images: Tensor, repeats: int
) -> tuple[float, float, float]:
    """Median of eager's time / the file's over interleaved pairs, and the median seconds of each."""
    eager(images)
    exported(images)
    pairs = []
    for _ in range(repeats):
        times = []
        for run in (eager, exported):
            start = time.perf_counter()
            run(images)
            times.append(time.perf_counter() - start)
        pairs.append(times)
    before, after = zip(*pairs, strict=True)
    return statistics.median(a / b for a, b in pairs), statistics.median(before), statistics.median(after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "speed", "int8"))
    parser.add_argument("names", nargs="*", metavar="HEAD|ID")
    parser.add_argument("--to", nargs="+", choices=FORMATS, default=[*FORMATS])
    parser.add_argument("--keep", type=Path, default=Path("export.json"))
    parser.add_argument("--fixed", nargs=2, type=int, metavar=("H", "W"), help="files that take this size alone")
    parser.add_argument("--size", nargs=2, type=int, default=(360, 480))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path, metavar="DIR", help="CamVid")
    options = parser.parse_args()
    {"table": table, "speed": speed, "int8": int8}[options.what](options)


if __name__ == "__main__":
    main()
