"""python benchmarks/large_images.py: peak memory of contextzoo segment on a TIFF made on the spot, larger than memory.

Needs rasterio (extra geo). The file has texture, a place on a map, and tiles of 512 x 512, deflated. What else is
typed, such as --window and --overlap, goes to contextzoo segment.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from safetensors.torch import save_file

from lightning_app.weights.description import HEADER
from lightning_app.weights.parts import new_segmentor

BLOCK = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(30_000, 30_000), help="height and width")
    parser.add_argument("--weights", help="default: the smallest network there is, so that reading and writing show")
    parser.add_argument("--folder", type=Path, help="for the files, which are removed; default: the system's own")
    typed, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory(dir=typed.folder) as name:
        folder = Path(name)
        make(folder / "large.tif", *typed.size)
        weights = typed.weights or write_smallest(folder / "smallest.safetensors")
        command = ["segment", str(folder / "large.tif"), "--weights", weights, "--out", str(folder / "out"), *options]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "lightning_app", *command], check=True)
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        facts = json.loads((folder / "out" / "large.json").read_text())
        with rasterio.open(folder / "out" / "large.tif") as file:
            assert ((file.height, file.width), file.crs.to_epsg()) == (tuple(typed.size), 32633)
            overviews = file.overviews(1)
        source, result = ((folder / path).stat().st_size / 1e6 for path in ("large.tif", "out/large.tif"))
    pixels = 3 * typed.size[0] * typed.size[1] / 1e6
    print(f"{typed.size} pixels, {pixels:.0f} MB of them; files of {source:.0f} and {result:.0f} MB")
    print(f"{facts['protocol']}, overviews {overviews}")
    print(f"peak memory {used.ru_maxrss / 1024:.0f} MiB; {seconds:.0f} s, {used.ru_utime + used.ru_stime:.0f} CPU s")


def make(path: Path, height: int, width: int) -> None:
    """Patches of colour with grain."""
    dice = np.random.default_rng(0)
    grain = dice.integers(0, 64, (3, BLOCK, BLOCK), dtype=np.uint8)
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 3, "height": height, "width": width, "crs": "EPSG:32633",
        "transform": rasterio.Affine(0.3, 0, 300_000, 0, -0.3, 5_000_000), "tiled": True, "blockxsize": BLOCK,
        "blockysize": BLOCK, "compress": "deflate", "zlevel": 1, "bigtiff": "if_safer", "interleave": "pixel",
    }  # fmt: skip
    with rasterio.Env(GDAL_CACHEMAX=64), rasterio.open(path, "w", **profile) as file:
        for top in range(0, height, BLOCK):
            for left in range(0, width, BLOCK):
                high, wide = min(BLOCK, height - top), min(BLOCK, width - left)
                colour = dice.integers(0, 192, (3, 1, 1), dtype=np.uint8)
                file.write((grain + colour)[:, :high, :wide], window=((top, top + high), (left, left + wide)))


def write_smallest(path: Path) -> str:
    """Weights, as they are drawn, of a network of one convolution for each 8 x 8 pixels and one for two classes."""
    backbone = {"class_path": "lightning_app.backbones.patchify.Patchify", "init_args": {"channels": 4, "depth": 1}}
    arguments = {"channels": 4, "num_convs": 0, "concat_input": False}
    head = {"class_path": "lightning_app.heads.fcn.FCN", "init_args": arguments}
    description = {
        "name": "smallest",
        "model": {"backbone": backbone, "head": head, "auxiliary": None},
        "classes": ["one", "other"],
        "palette": [[200, 80, 40], [40, 80, 200]],
        "protocol": {"mode": "whole", "scales": [1.0]},
        "data": {"class_path": "lightning_app.data.Folder", "init_args": {}},
    }
    model = new_segmentor(description["model"], 2, "smallest")
    save_file(
        {name: tensor.clone() for name, tensor in model.state_dict().items()}, path, {HEADER: json.dumps(description)}
    )
    return str(path)


if __name__ == "__main__":
    main()
