"""Detectors and their parts against the numbers that mmdetection computed, in float64, through the weight converter."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden_files
from test_convert_whole import redraw
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from lightning_app.blocks.generalized_attention import GeneralizedAttentionBlock
from lightning_app.tasks.instance import photographs
from lightning_app.tasks.instance.anchors import Anchors
from lightning_app.tasks.instance.boxes import TwoSidedCoder
from lightning_app.tasks.instance.cascade import CascadeHeads
from lightning_app.tasks.instance.paste import paste
from lightning_app.tasks.instance.roi_align import LevelAlign
from lightning_app.tasks.instance.roi_heads import InstanceHeads
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab import detection, detection_parts
from lightning_app.weights.openmmlab.backbones import new_backbone, rename_backbone
from lightning_app.weights.openmmlab.convert import load_strictly
from lightning_app.weights.openmmlab.heads import substitute
from lightning_app.weights.openmmlab.plugins import ATTENTION, attention_arguments

MODULES = golden_files("detection", "attention__", "backbone__", "neck__", "mask_head__", "roi__")
WHOLE = golden_files("detection", "whole__")
PIECES = golden_files("detection", "pieces")
ROWS = Path(__file__).parents[1] / "goldens" / "detection" / "rows.json"  # the models of the published rows
STRIDES = (4, 8, 16, 32)


class Golden:
    """One file: what it says of itself, its arrays, and the weights of what was computed."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.arrays = {key: torch.from_numpy(file[key]) for key in file.files if file[key].dtype.kind != "U"}
            self.meta: dict[str, Any] = json.loads(str(file["meta"]))
            self.recipe = json.loads(str(file["recipe"])) if "recipe" in file.files else []
            self.config = str(file["config"]) if "config" in file.files else ""
        seed = int(self.arrays["seed"]) if "seed" in self.arrays else self.meta.get("seed", 0)
        drawn = redraw(self.recipe, seed)
        stored = {key.removeprefix("sd/"): value for key, value in self.arrays.items() if key.startswith("sd/")}
        self.weights: dict[str, Tensor] = {**drawn, **stored}

    def listed(self, name: str) -> list[Tensor]:
        """The arrays name/0, name/1, ..."""
        count = sum(key.startswith(f"{name}/") for key in self.arrays)
        return [self.arrays[f"{name}/{i}"] for i in range(count)]

    def cotangents(self) -> list[Tensor]:
        shapes = [each.shape for each in self.listed("out64")]
        seeds = (900 + i + self.meta["seed"] for i in range(len(shapes)))
        drawn = (np.random.RandomState(seed).standard_normal(shape) for seed, shape in zip(seeds, shapes, strict=True))
        return [torch.from_numpy(each.astype(np.float32)).double() for each in drawn]


class Listed(nn.Module):
    """A module that takes its levels one by one."""

    def __init__(self, module: nn.Module, *more: Any) -> None:
        super().__init__()
        self.module, self.more = module, more

    def forward(self, *levels: Tensor) -> Any:
        return self.module(list(levels), *self.more)


def module_of(golden: Golden) -> tuple[nn.Module, dict[str, str]]:
    """What a file computed, without its weights, and their names -> ours."""
    kind, config = golden.meta["kind"], golden.meta["config"]
    names: Iterable[tuple[str, str]]
    if kind.startswith("generalized attention"):
        arguments = json.loads(kind.partition("generalized attention ")[2])
        module: nn.Module = GeneralizedAttentionBlock(arguments["in_channels"], **attention_arguments(arguments))
        names = ATTENTION
    elif kind == "backbone":
        module = new_backbone(config)
        return module, {
            name: ours for name, each in golden.weights.items() for ours in rename_backbone(config, {name: each})
        }
    elif kind == "neck" and config["type"] == "BFP":
        module = Listed(detection_parts.new_balance(config))
        names = ((r"refine\.(\w+)\.conv\.", r"module.refine.\1."),)
    elif kind == "neck":
        module, names = Listed(detection_parts.new_neck(config)), prefixed("neck.", "module.", drop="fpn.")
    elif kind == "mask head":
        module = detection_parts.new_mask_head(config)
        names = prefixed("roi_head.mask_head.", "", drop="roi_heads.mask_head.")
    elif kind.startswith("RoI extractor"):
        boxes = torch.tensor(json.loads(kind.partition(": ")[2]), dtype=torch.float64)
        by_image = [boxes[boxes[:, 0] == image, 1:] for image in range(len(golden.arrays["in/0"]))]
        module = Listed(detection_parts.new_roi_align(config), by_image)
        names = ((r"pre_module\.conv\.", "module.pre.0."), (r"post_module\.", "module.post."))
        ours = {name: substitute(names, name) for name in golden.weights}
        return module, {name: substitute(ATTENTION, each) for name, each in ours.items()}
    else:
        raise AssertionError(f"a new kind of golden: {kind}")
    return module, {name: substitute(names, name) for name in golden.weights}


def prefixed(theirs: str, ours: str, *, drop: str) -> list[tuple[str, str]]:
    """The names of a part of a detector when it stands alone."""

    def alone(names: tuple[str, str]) -> tuple[str, str]:
        pattern = names[0].removeprefix(re.escape(theirs)).replace(r"roi_head\.mask_head\.((?:\d\.)?)", "()")
        return pattern, ours + names[1].removeprefix(drop).replace("roi_heads.\\1mask_head.", "")

    part = re.escape(theirs).rstrip(".").rstrip("\\")
    return [alone(names) for names in detection.NAMES if names[0].startswith(part)]


def assert_equal(actual: Tensor, expected: Tensor, what: str) -> None:
    assert actual.shape == expected.shape, what
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9 * max(expected.abs().max().item(), 1e-3), msg=what)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_part_gives_the_same_outputs_and_gradients(path: Path) -> None:
    golden = Golden(path)
    module, names = module_of(golden)
    load_strictly(module, {names[name]: each for name, each in golden.weights.items()}, what=path.stem)
    module.double().eval()
    inputs = [each.double().requires_grad_() for each in golden.listed("in")]
    outputs = module(*inputs)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    assert len(outputs) == len(golden.listed("out64"))
    for i, (output, expected) in enumerate(zip(outputs, golden.listed("out64"), strict=True)):
        assert_equal(output, expected, f"output {i}")
    sum((output * cot).sum() for output, cot in zip(outputs, golden.cotangents(), strict=True)).backward()
    for i, (each, expected) in enumerate(zip(inputs, golden.listed("grad64"), strict=True)):
        assert_equal(each.grad if each.grad is not None else torch.zeros_like(each), expected, f"gradient {i}")
    norms: Mapping[str, float] = golden.meta["parameter_gradient_norms"]
    for name, norm in norms.items():
        gradient = module.get_parameter(names[name]).grad
        assert gradient is not None, name
        assert abs(gradient.norm().item() - norm) <= 1e-9 * max(norms.values()), name


@pytest.mark.parametrize("path", PIECES, ids=lambda path: path.stem)
def test_boxes_regions_masks_and_pixels(path: Path) -> None:
    arrays = Golden(path).arrays
    anchors = Anchors((*STRIDES, 64))
    for i, cell in enumerate(anchors.cell_anchors):
        assert torch.equal(cell, arrays["anchors/base"][i])
    levels = [torch.zeros(1, 1, -(-288 // stride), -(-320 // stride)).double() for stride in anchors.strides]
    for i, boxes in enumerate(anchors.on(levels)):
        assert len(boxes) == arrays[f"anchors/count/{i}"]
        assert torch.equal(boxes[-3:], arrays[f"anchors/last/{i}"])

    for part, weights in (("rpn", (1.0, 1.0, 1.0, 1.0)), ("roi", (10.0, 10.0, 5.0, 5.0))):
        boxes, codes, expected = (arrays[f"decode/{part}/{name}"] for name in ("boxes", "deltas", "out"))
        decoded = clip_boxes_to_image(TwoSidedCoder(weights).decode_single(codes, boxes), (790, 1201))
        torch.testing.assert_close(decoded, expected, rtol=0, atol=1e-9)

    align = LevelAlign(STRIDES, 7, 3)
    assert torch.equal(align.levels(arrays["levels/boxes"]), arrays["levels/out"])
    features = [arrays[f"roi/feat/{i}"].double() for i in range(4)]
    for size in (7, 14):
        expected = arrays[f"roi/out{size}"]
        found = LevelAlign(STRIDES, size, 3)(features, [arrays["roi/boxes"][: len(expected)]])
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)

    heads = InstanceHeads(4, STRIDES, arrays["nms/boxes"].shape[1], hidden=4, masks=False)
    scores = arrays["nms/scores"][:, :-1]
    box, label = torch.where(scores > heads.score_thresh)
    found = heads.suppress(arrays["nms/boxes"][box, label], scores[box, label], label)
    assert found.scores is not None
    assert torch.equal(torch.cat([found.boxes, found.scores[:, None]], dim=1), arrays["nms/out"])
    assert torch.equal(found.labels, arrays["nms/labels"])

    masks = paste(arrays["paste/probabilities"], arrays["paste/boxes"], (90, 120))
    assert (np.packbits(masks.numpy(), axis=-1) == arrays["paste/masks"].numpy()).all()

    image, expected = (arrays[f"resize/{name}"].permute(2, 0, 1) for name in ("image", "out"))
    resized = photographs.resize(image / 255, tuple(expected.shape[1:]))
    assert torch.equal((resized * 255).round().to(torch.uint8), expected)
    for size, seen in zip(arrays["resize/shapes"].tolist(), arrays["resize/shapes_out"].tolist(), strict=True):
        assert photographs.seen_size(*size, 800, 1333) == tuple(seen)


def model_of(golden: Golden) -> dict[str, Any]:
    """The configuration of the published row, as mmdetection spells it."""
    return json.loads(ROWS.read_text())[golden.config]


class Part:
    """Maps of one part at the positions that a file holds, and their norms."""

    def __init__(self, golden: Golden, name: str) -> None:
        self.arrays, self.name = golden.arrays, name

    def assert_equal(self, maps: Iterable[Tensor]) -> None:
        for i, found in enumerate(maps):
            norm, at, expected = (self.arrays[f"{self.name}/{what}/{i}"] for what in ("norm", "at", "values"))
            torch.testing.assert_close(found.norm(), norm, rtol=1e-9, atol=0)
            error = (found.flatten()[at] - expected).abs().max() / expected.std()
            assert error < 1e-8, (self.name, i)


@pytest.mark.slow
@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
@torch.no_grad()
def test_a_detector_finds_the_same(path: Path) -> None:
    golden = Golden(path)
    arrays, meta = golden.arrays, golden.meta
    model = detection.load_detector(golden.weights, model_of(golden)).double()
    model.size = None
    model.rpn._pre_nms_top_n["testing"] = meta["rpn_test"]["nms_pre"]
    model.rpn._post_nms_top_n["testing"] = meta["rpn_test"]["max_per_img"]
    image = arrays["image"].permute(2, 0, 1).double() / 255

    batch = photographs.pad([(image - model.mean) / model.std], model.multiple)
    assert list(batch.shape[2:]) == meta["padded"]
    Part(golden, "backbone").assert_equal(model.backbone(batch))
    levels, sizes = model.levels([image])
    Part(golden, "neck").assert_equal(levels)
    objectness, deltas = model.rpn.head(levels)
    Part(golden, "rpn/objectness").assert_equal(objectness)
    Part(golden, "rpn/deltas").assert_equal(deltas)

    proposals = model.rpn.propose(levels, sizes)
    torch.testing.assert_close(proposals[0], arrays["proposals/boxes"], rtol=0, atol=1e-7)
    first = model.roi_heads[0] if isinstance(model.roi_heads, CascadeHeads) else model.roi_heads
    logits, codes = first.judge(levels, [proposals[0][:20]])
    assert (logits.roll(-1, 1) - arrays["head/class_logits"]).abs().max() < 1e-8 * arrays["head/class_logits"].std()
    codes = codes[:, 1:].flatten(1)[:, : arrays["head/deltas"].shape[1]]
    assert (codes - arrays["head/deltas"]).abs().max() < 1e-8 * arrays["head/deltas"].std()

    (found,) = model([image])
    torch.testing.assert_close(found.boxes, arrays["out/boxes"], rtol=0, atol=1e-7)
    torch.testing.assert_close(found.scores, arrays["out/scores"], rtol=0, atol=1e-8)
    assert torch.equal(found.labels, arrays["out/labels"].long())
    if "out/mask_logits" not in arrays:
        assert found.masks is None
        return
    expected = arrays["out/mask_logits"]
    shown = found[: len(expected)]
    probabilities = model.roi_heads.mask_probabilities(levels, [shown])
    torch.testing.assert_close(probabilities, expected.sigmoid(), rtol=0, atol=1e-6)
    if not isinstance(model.roi_heads, CascadeHeads):
        logits = model.roi_heads.mask_logits(levels, [shown])
        assert (logits - expected).abs().max() < 1e-8 * expected.std()
    height, width = image.shape[1:]
    assert shown.masks is not None
    assert torch.equal(shown.masks, paste(expected.sigmoid(), arrays["out/boxes"][: len(expected)], (height, width)))


def test_what_has_no_counterpart_is_named_in_one_line() -> None:
    row = json.loads(ROWS.read_text())["mask-rcnn_r50_fpn_1x_coco"]
    for change, message in (
        ({"type": "RetinaNet"}, 'detector "RetinaNet" has no counterpart here'),
        ({"neck": {"type": "PAFPN", "in_channels": [256], "out_channels": 256}}, "neck="),
        ({"neck": [{"type": "FPN"}, {"type": "HRFPN"}]}, "The neck FPN and HRFPN"),
        ({"rpn_head": row["rpn_head"] | {"type": "GARPNHead"}}, "rpn_head.type='GARPNHead'"),
        ({"test_cfg": row["test_cfg"] | {"rcnn": {"nms": {"type": "soft_nms"}}}}, "test_cfg.rcnn"),
    ):
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            detection.new_detector({**row, **change})
        assert "\n" not in str(caught.value)
