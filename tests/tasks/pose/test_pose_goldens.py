"""Codecs, crops, flips, losses and OKS against the numbers that mmpose computed, in float64."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden_files
from torch import Tensor

from lightning_app.data.pose import affine
from lightning_app.tasks.pose import losses, oks
from lightning_app.tasks.pose.codec import Codec
from lightning_app.weights.openmmlab.pose import codec_of

Arrays = dict[str, Tensor]


def load(path: Path) -> tuple[dict[str, Any], Arrays]:
    with np.load(path) as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if file[key].dtype.kind != "U"}
        return json.loads(str(file["meta"])), arrays


def equal(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=0, atol=tolerance)


def each(*beginnings: str) -> Any:
    return pytest.mark.parametrize("path", golden_files("pose", *beginnings), ids=lambda path: path.stem)


@each("encode__")
def test_encode(path: Path) -> None:
    meta, arrays = load(path)
    visible = arrays["visible"][0].double()
    maps, weights = codec_of(meta["codec"]).encode(arrays["keypoints"][0], visible)
    # the reference draws in float32: offsets reach tens, Gaussians 1
    torch.testing.assert_close(maps, arrays["heatmaps"].double(), rtol=2e-6, atol=2e-6)
    assert torch.equal(weights, arrays["weights"][0].double())
    many = codec_of(meta["codec"]).encode(arrays["keypoints"][0].repeat(3, 1, 1), visible.repeat(3, 1))[0]
    assert torch.equal(many, maps.expand(3, *maps.shape))


@each("decode__")
def test_decode(path: Path) -> None:
    meta, arrays = load(path)
    codec = codec_of(meta["codec"])
    maps = arrays["heatmaps"]
    points, scores = codec.decode(maps.double())
    # discs and offsets the reference decodes in float32 alone
    tolerance = 1e-5 if codec.kind == "udp_combined" else 1e-9
    equal(points, arrays["keypoints64"], tolerance)
    equal(scores, arrays["scores"].double(), tolerance)
    single, _ = codec.decode(maps)
    equal(single, arrays["keypoints"], 1e-3)
    many = codec.decode(maps.double().expand(2, 3, *maps.shape))[0]
    assert torch.equal(many, codec.decode(maps.double())[0].expand_as(many))


@each("affine__")
def test_affine(path: Path) -> None:
    meta, arrays = load(path)
    width, height = meta["input_size"]
    centre, scale = affine.centre_and_scale(arrays["boxes_xyxy"], (height, width), meta["padding"])
    equal(centre, arrays["center"])
    equal(scale, arrays["scale_fixed"])
    for kind in ("default", "udp"):
        warps = affine.warps(centre, scale, (height, width), udp=kind == "udp", rotation=arrays["rotation"])
        equal(warps, arrays[f"warp_{kind}_exact"])
        equal(affine.transform(arrays["points"], warps), arrays[f"points_{kind}"], 1e-3)  # by a float32 matrix
    equal(affine.to_image(arrays["decoded_input"], centre, scale, (height, width)), arrays["decoded_image"])


@each("crop__")
def test_crop(path: Path) -> None:
    meta, arrays = load(path)
    width, height = meta["size_wh"]
    photograph = arrays["image"].permute(2, 0, 1)
    for kind in ("default", "udp"):
        centre, scale, rotation = (arrays[key][None] for key in ("center", "scale", "rotation"))
        warp = affine.warps(centre, scale, (height, width), udp=kind == "udp", rotation=rotation)
        equal(warp[0], arrays[f"{kind}_matrix"].double())
        many = arrays[f"{kind}_matrix"].double().expand(3, 2, 3)
        crops = affine.crop(photograph.double(), many, (height, width)).permute(0, 2, 3, 1)
        equal(crops, arrays[f"{kind}_exact"].expand_as(crops))
        single = affine.crop(photograph.float(), many[:1], (height, width))[0].permute(1, 2, 0)
        assert (single - arrays[f"{kind}_cv2"]).abs().max() < 0.51  # OpenCV 5 rounds to bytes


@each("flip__")
def test_flip(path: Path) -> None:
    _, arrays = load(path)
    indices = arrays["flip_indices"].tolist()
    assert torch.equal(Codec("udp").flip(arrays["heatmaps"], indices), arrays["plain"])
    for kind in ("msra", "dark"):
        assert torch.equal(Codec(kind).flip(arrays["heatmaps"], indices), arrays["shifted"])
    assert torch.equal(Codec("udp_combined").flip(arrays["combined"], indices), arrays["combined_flipped"])


@each("loss__")
def test_losses(path: Path) -> None:
    _, arrays = load(path)
    output, target, weights = arrays["output"].requires_grad_(), arrays["target"], arrays["weights"]
    given = {
        "mse": losses.heatmap_loss(output, target, weights),
        "mse_unweighted": losses.heatmap_loss(output, target, torch.ones_like(weights)),
        "mse_skip_empty": 2 * losses.heatmap_loss(output, target, weights, skip_empty=True),
        "official": 0.5 * losses.heatmap_loss(output, target, weights.square()),
    }
    combined = arrays["combined_output"].requires_grad_()
    given["combined"] = Codec("udp_combined").loss(combined, arrays["combined_target"], weights)
    assert torch.equal(Codec("dark").loss(output, target, weights), given["mse"])
    for name, loss in given.items():
        equal(loss, arrays[name])
        (gradient,) = torch.autograd.grad(loss, combined if name == "combined" else output)
        equal(gradient, arrays[f"{name}_grad"])


@each("oks__")
def test_oks(path: Path) -> None:
    meta, arrays = load(path)
    sigmas = torch.tensor(meta["sigmas"], dtype=torch.float64)
    anchor, others, areas, scores = (arrays[key] for key in ("anchor", "others", "areas", "scores"))
    pair = anchor[:, :2], others[..., :2], arrays["area_anchor"], areas, sigmas
    equal(oks.oks(*pair), arrays["oks"].double(), 1e-7)  # as float32 in the file
    seen = (anchor[:, 2] > 0.4) & (others[..., 2] > 0.4)
    equal(oks.oks(*pair, counted=seen), arrays["oks_vis_thr"].double(), 1e-7)
    persons = others[..., :2], scores, areas, sigmas
    assert oks.oks_nms(*persons, 0.9).tolist() == arrays["keep_09"].tolist()
    assert oks.oks_nms(*persons, 0.5).tolist() == arrays["keep_05"].tolist()
    assert oks.soft_oks_nms(*persons).tolist() == arrays["soft_keep"].tolist()


@pytest.mark.parametrize(
    "path",
    [path for path in golden_files("pose", "coco_ap__") if "kept" in np.load(path)],
    ids=lambda path: path.stem,
)
def test_rescoring_and_suppression(path: Path) -> None:
    meta, arrays = load(path)
    sigmas = torch.tensor(meta["sigmas"], dtype=torch.float64)
    scores = oks.person_scores(arrays["pred_box_scores"], arrays["pred_scores"], meta["keypoint_score_thr"])
    equal(scores, arrays["rescored"])
    areas, kept = arrays["pred_scales"].prod(-1), set()
    for image in arrays["pred_image"].unique():
        here = (arrays["pred_image"] == image).nonzero().squeeze(1)
        persons = arrays["pred_keypoints"][here], scores[here], areas[here], sigmas
        kept |= set(here[oks.oks_nms(*persons, meta["nms_thr"])].tolist())
    assert kept == set(arrays["kept"].tolist())
