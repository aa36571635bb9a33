"""mmpose's published estimators: every tensor has its place, and networks redrawn from their names equal theirs."""

import gzip
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden_files
from torch import Tensor

import zoo
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.data.pose.affine import centre_and_scale, to_image
from lightning_app.tasks.pose.codec import Codec
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.convert import load_strictly
from lightning_app.weights.openmmlab.pose import (
    codec_of,
    load_estimator,
    new_estimator,
    parts_of,
    rename,
    upstream_config,
)

HERE = Path(__file__).parents[1]
NAMES = json.loads(gzip.decompress((HERE / "goldens" / "pose_names.json.gz").read_bytes()))
ROWS = HERE.parents[1] / "shared" / "openmmlab" / "published_pose.json"  # where present
ENTRIES = {entry.config: entry for entry in zoo.list_entries(task="pose") if entry.format == "openmmlab"}
NETWORKS = {json.dumps(upstream_config(entry) | {"codec": 0}): config for config, entry in ENTRIES.items()}
WHOLE = [path for path in golden_files("pose") if "recipe" in np.load(path)]
QUICK = ("hrnet_tiny", "hrnet_tiny_psa_p", "simplebaseline_r18")
PEOPLE = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
POLARIZED = {
    "conv_q_right": "channel_query",
    "conv_v_right": "channel_value",
    "conv_up": "channel_up",
    "conv_q_left": "spatial_query",
    "conv_v_left": "spatial_value",
}


def fresh(config: str) -> dict[str, Tensor]:
    """The published tensors of a row, without their numbers."""
    whole = ("num_batches_tracked", "relative_position_index")
    return {
        name: torch.empty(shape, dtype=torch.int64 if name.endswith(whole) else torch.float32, device="meta")
        for name, shape in NAMES["networks"][NAMES["rows"][config]]
    }


@pytest.mark.slow
@pytest.mark.parametrize("config", NETWORKS.values())
def test_every_published_tensor_has_its_place(config: str) -> None:
    upstream = upstream_config(ENTRIES[config])
    with torch.device("meta"):
        model = new_estimator(upstream)
    load_strictly(model, rename(upstream, fresh(config)), what=config)


def test_files_of_release_0_call_the_head_otherwise() -> None:
    config = "td-hm_res50_8xb64-210e_coco-256x192"
    upstream = upstream_config(ENTRIES[config])
    with torch.device("meta"):
        model = new_estimator(upstream)
    old = {re.sub(r"^head\.", "keypoint_head.", name): each for name, each in fresh(config).items()}
    load_strictly(model, rename(upstream, old), what=config)
    with pytest.raises(InputError, match=r"1 missing: head.classifier.bias"):
        load_strictly(model, rename(upstream, dict(list(old.items())[:-1])), what=config)


@pytest.mark.skipif(not ROWS.is_file(), reason="mmpose's configurations are not beside the repository")
def test_entries_say_what_mmposes_configurations_say() -> None:
    rows = {row["name"]: row for row in json.loads(ROWS.read_text())}
    assert len(ENTRIES) == 74
    for config, entry in ENTRIES.items():
        row, upstream = rows[config], upstream_config(entry)
        assert parts_of(upstream) == parts_of(row)
        assert codec_of(upstream["codec"]) == codec_of(row["codec"])
        assert upstream["preprocess"] == row["preprocess"]
        assert (entry.metrics["AP"], entry.sha256) == (row["ap"], row["sha256_prefix"])
        assert entry.details.boxes == "COCO_val2017_detections_AP_H_56_person.json"  # type: ignore[attr-defined]
    absent = rows.keys() - ENTRIES.keys()
    exact = {name for name in absent if (rows[name].get("timm") or {}).get("match", "").startswith("exact")}
    assert exact == {"td-hm_res101_8xb32-210e_coco-384x288"}  # whose file is that of another row


def redraw(recipe: list[dict[str, Any]], seed: int) -> dict[str, Tensor]:
    """The tensors that a recipe describes."""
    tensors = {}
    for step in recipe:
        name, shape = step["name"], step["shape"]
        random = np.random.RandomState(zlib.crc32(name.encode()) ^ seed)
        if "values" in step:
            drawn = np.reshape(step["values"], shape)
        elif "const" in step:
            drawn = np.full(shape, step["const"])
        elif "uniform" in step:
            drawn = random.uniform(*step["uniform"], shape) * step["times"]
        else:
            drawn = np.asarray(random.standard_normal(shape) * step["times"])
        whole = name.endswith(("num_batches_tracked", "relative_position_index"))
        tensors[name] = torch.from_numpy(drawn.astype(np.int64 if whole else np.float32))
    return tensors


def whole_network(meta: dict[str, Any], tensors: dict[str, Tensor]) -> PoseEstimator:
    """The network of a golden, with its weights."""
    if meta["config"]:
        return load_estimator(tensors, upstream_config(ENTRIES[meta["config"]]))
    size = meta["size_wh"]
    codec = {"type": "MSRAHeatmap", "input_size": size, "heatmap_size": [side // 4 for side in size]}
    config = {"backbone": meta["backbone"], "head": meta["head"], "codec": codec}
    model = new_estimator(config)
    renamed = rename(config, tensors)
    if meta["psa"]:
        stages = ("layer1", "stage2", "stage3", "stage4")
        stages = stages if meta["backbone"]["type"] == "HRNet" else ("layer1", "layer2", "layer3", "layer4")
        mode = {"p": "parallel", "s": "sequential"}[meta["psa"]]
        block = {"block": "polarized", "where": "inside", "mode": mode}
        arguments = model.backbone.description()["init_args"] | {"context": dict.fromkeys(stages, block)}
        model = PoseEstimator(TimmBackbone(**arguments), model.head, model.codec)
        renamed = {polarized(name, mode): each for name, each in renamed.items()}
    load_strictly(model, renamed, what=meta["name"])
    return model.eval()


def polarized(name: str, mode: str) -> str:
    """The official block's names as ours."""
    if ".deattn." not in name:
        return name
    before, after = name.split(".deattn.")
    part, rest = after.split(".", 1)
    rest = f"0.{rest}" if (part, mode) == ("conv_up", "parallel") else rest
    return f"{before}.aa.1.{POLARIZED[part]}.{rest}"


@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=() if p.stem in QUICK else pytest.mark.slow) for p in WHOLE], ids=lambda p: p.stem
)
def test_whole_networks_equal_the_reference(path: Path) -> None:
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    meta, seed = json.loads(str(arrays["meta"])), int(arrays["seed"])
    model = whole_network(meta, redraw(json.loads(str(arrays["recipe"])), seed)).double()
    assert sum(parameter.numel() for parameter in model.parameters()) == meta["parameters"]
    drawn = np.random.RandomState(1000 + seed).standard_normal((1, 3, *arrays["size"])).astype(np.float32)
    normalised = torch.from_numpy(drawn).double().requires_grad_("grad_at" in arrays)
    images = normalised * model.std + model.mean
    maps = model.head(model.features(images))

    spread = float(maps.detach().std())
    expected = torch.from_numpy(arrays["heatmaps" if "heatmaps" in arrays else "heatmaps_values"])
    chosen = maps if "heatmaps" in arrays else maps[0].flatten()[torch.from_numpy(arrays["heatmaps_at"])]
    torch.testing.assert_close(chosen.detach(), expected, rtol=0, atol=1e-9 * spread)
    if "grad_at" in arrays:
        cotangent = np.random.RandomState(int(arrays["cotangent_seed"])).standard_normal(maps.shape)
        (gradient,) = torch.autograd.grad((maps * torch.from_numpy(cotangent)).sum(), normalised)
        values = torch.from_numpy(arrays["grad_values"])
        found = gradient.flatten()[torch.from_numpy(arrays["grad_at"])]
        torch.testing.assert_close(found, values, rtol=0, atol=1e-9 * float(values.std()))
    if meta["config"]:
        check_decoding(model, maps.detach(), images.detach(), arrays, meta["config"])


@torch.no_grad()
def check_decoding(
    model: PoseEstimator, maps: Tensor, images: Tensor, arrays: dict[str, np.ndarray], config: str
) -> None:
    """Mirrored maps, keypoints of their mean, and those in the photograph."""
    codec, spread = model.codec, float(maps.std())
    count = maps.shape[1] // codec.maps_per_point
    indices = PEOPLE + list(range(len(PEOPLE), count))
    mirrored = codec.flip(model.head(model.features(images.flip(3))), indices)
    if "flipped_at" in arrays:
        found = mirrored[0].flatten()[torch.from_numpy(arrays["flipped_at"])]
        torch.testing.assert_close(found, torch.from_numpy(arrays["flipped_values"]), rtol=0, atol=1e-9 * spread)
    flips = ENTRIES[config].details.flip_test  # type: ignore[attr-defined]
    mean = ((maps + mirrored) / 2 if flips else maps).float()[0]
    points, scores = codec.decode(mean)
    points, scores = points[: len(arrays["scores"])], scores[: len(arrays["scores"])]
    torch.testing.assert_close(scores, torch.from_numpy(arrays["scores"]), rtol=1e-6, atol=1e-6 * spread)
    expected = torch.from_numpy(arrays["keypoints_input"]).float()
    pixels = Codec("msra", codec.input_size, codec.maps).decode(mean[:: codec.maps_per_point])[0][: len(points)]
    step = (expected - pixels).abs().amax(-1, keepdim=True)  # on noise as long as its Hessian is near singular
    assert ((points - expected).abs() <= 1e-3 * (1 + step.square())).all()
    size = codec.input_size
    centre, scale = centre_and_scale(torch.from_numpy(arrays["box_xyxy"]), size)
    torch.testing.assert_close(centre, torch.from_numpy(arrays["center"]))
    torch.testing.assert_close(scale, torch.from_numpy(arrays["scale"]))
    placed = to_image(torch.from_numpy(arrays["keypoints_input"]).double(), centre, scale, size)
    torch.testing.assert_close(placed, torch.from_numpy(arrays["keypoints_image"]), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": {"type": "CSPNeXt"}}, 'mmpose\'s backbone "CSPNeXt" has no counterpart here: only ResNet'),
        ({"backbone": {"type": "ResNet", "depth": 77}}, "ResNet with depth 77 has no counterpart here: only 18"),
        ({"head": {"type": "CPMHead"}}, 'mmpose\'s head "CPMHead" has no counterpart here'),
        ({"codec": {"type": "MegviiHeatmap"}}, 'mmpose\'s codec "MegviiHeatmap" has no counterpart here'),
        ({"neck": {"type": "FPN"}}, 'mmpose\'s neck "FPN" has no counterpart here'),
    ],
)
def test_what_has_no_counterpart_is_one_line(change: dict[str, Any], message: str) -> None:
    upstream = upstream_config(ENTRIES["td-hm_res50_8xb64-210e_coco-256x192"])
    with pytest.raises(InputError, match=message):
        parts_of(upstream | change)
