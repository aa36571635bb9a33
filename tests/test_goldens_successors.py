"""Heads and blocks that came after the survey against the numbers of their references, in float64."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden_files
from torch import Tensor, nn

from lightning_app.blocks.dappm import DAPPM
from lightning_app.blocks.efficientvit import EfficientViTBlock, LinearAttention
from lightning_app.blocks.external_attention import ExternalAttention
from lightning_app.blocks.hamburger import nmf, soft_vq
from lightning_app.blocks.knet import KernelUpdate
from lightning_app.blocks.mcibi import MemoryContext
from lightning_app.blocks.pointrend import PointRend
from lightning_app.heads.base import ContextHead
from lightning_app.heads.ddrnet import DDRNet, PreActivated
from lightning_app.heads.lightham import LightHam
from lightning_app.weights.openmmlab import knet
from lightning_app.weights.openmmlab.convert import build_head
from lightning_app.weights.openmmlab.heads import RULES
from lightning_app.weights.openmmlab.names import substitute

Arrays = dict[str, Tensor]


def load(path: Path) -> tuple[dict[str, Any], dict[str, Any], Arrays]:
    with np.load(path) as file:
        arguments, meta = json.loads(str(file["kwargs_json"])), json.loads(str(file["meta_json"]))
        return arguments, meta, {key: torch.from_numpy(file[key]) for key in file.files if "_json" not in key}


def filled(module: nn.Module, arrays: Arrays, names: Mapping[str, str]) -> nn.Module:
    """``module`` with the reference's tensors; a name goes through every pattern."""
    state = {}
    for name in (key[3:] for key in arrays if key.startswith("sd/")):
        ours = name
        for pattern, replacement in names.items():
            ours = re.sub(pattern, replacement, ours)
        state[ours] = arrays[f"sd/{name}"]
    module.load_state_dict(state)
    return module


class Head(nn.Module):
    """A head on maps, with its side outputs behind the prediction, or in front where training lists them so."""

    def __init__(self, head: ContextHead, order: str = "last first") -> None:
        super().__init__()
        self.head, self.order = head, order

    def forward(self, *maps: Tensor) -> list[Tensor]:
        outputs = self.head.outputs(maps)
        sides = [side.logits for side in outputs.auxiliary]
        return [*sides, outputs.logits] if self.order == "sides first" else [outputs.logits, *sides]


class WithTokens(Head):
    """DPT: maps and class tokens by turns, which stand side by side here."""

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        pairs = zip(inputs[::2], inputs[1::2], strict=True)
        return [self.head([torch.cat([x, token[..., None, None].expand_as(x)], dim=1) for x, token in pairs])]


def converted(arguments: dict[str, Any], meta: dict[str, Any], arrays: Arrays) -> nn.Module:
    """A head of OpenMMLab's, through the converter."""
    state = {key[3:]: value for key, value in arrays.items() if key.startswith("sd/")}
    head = build_head({"norm_cfg": {"type": "BN"}, **arguments, "type": meta["head"]}, state)
    if meta["head"] == "DPTHead":
        return WithTokens(head)
    first = meta["head"] == "ISNetHead" or (meta["head"] == "IterativeDecodeHead" and meta["mode"] == "train")
    return Head(head, "sides first" if first else "last first")


def light_ham(arguments: dict[str, Any], meta: dict[str, Any], arrays: Arrays) -> nn.Module:
    slices = arguments["ham_kwargs"]["MD_S"]
    start = arrays["extra/bases"].double().unflatten(0, (-1, slices))  # of each image, or of all
    state = {key: value for key, value in arrays.items() if "ham.bases" not in key}
    state |= {"sd/hamburger.ham.bases": start[0]}
    head = converted(arguments, meta, state)
    assert isinstance(head, Head)
    assert isinstance(head.head, LightHam)
    head.double()
    head.head.block.start, head.head.block.redraw = start, False
    return head


class Decomposition(nn.Module):
    """A decomposition alone; its bases and coefficients are kept."""

    def __init__(self, decompose: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.decompose = decompose

    def forward(self, x: Tensor) -> Tensor:
        self.bases, self.coefficients = self.decompose(x.flatten(2))
        return (self.bases @ self.coefficients).view_as(x)


def kernel_update(arguments: dict[str, Any], meta: dict[str, Any], arrays: Arrays) -> nn.Module:
    channels, width = arguments["in_channels"], arguments["kernel_updator_cfg"]["in_channels"]
    sizes = [arguments[key] for key in ("num_heads", "feedforward_channels", "num_mask_fcs")]
    state = {substitute(knet.NAMES, key[3:]): value.double() for key, value in arrays.items() if key.startswith("sd/")}
    update = KernelUpdate(channels, *sizes, width).double()
    update.load_state_dict(state)

    class Update(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.update = update

        def forward(self, features: Tensor, kernels: Tensor, masks: Tensor) -> list[Tensor]:
            logits, made = self.update(features, kernels.flatten(2), masks)
            return [logits, made[..., None, None]]

    return Update()


PAIRS = {r"\.0\.weight$": ".conv.weight", r"\.1\.(weight|bias|running|num)": r".bn.\1"}
MEMORY = {
    r"self_attention_ms\.": "within.",
    r"self_attention\.": "beyond.",
    r"bottleneck_ms\.": "fuse_within.",
    r"bottleneck\.": "fuse.",
    r"(query|key|value|out)_project\.": r"\1.",
    r"((?:query|key)\.[01])\.0\.weight": r"\1.conv.weight",
    r"((?:query|key)\.[01])\.1\.": r"\1.bn.",
    r"(value|out|fuse|fuse_within)\.0\.weight": r"\1.conv.weight",
    r"(value|out|fuse|fuse_within)\.1\.": r"\1.bn.",
}
PYRAMID = {r"(scales\.\d)\.1\.": r"\1.", r"processes\.(conv|bn)": r"processes.0.\1", "compression": "compress"}
BRANCH = {r"([id]|aux|p)_head\.": r"\1_head.", r"(head)\.0\.": r"\1.conv.", r"(head)\.1\.": r"\1.norm."}


def ddr(arguments: dict[str, Any], meta: dict[str, Any], arrays: Arrays) -> nn.Module:
    width, classes = arguments["in_channels"], arguments["num_classes"]
    head = DDRNet([width // 2, width], classes, channels=arguments["channels"], dropout=0.0)
    names = {
        r"^head\.0\.": "convolve.conv.",
        r"^head\.1\.": "convolve.norm.",
        r"^aux_head\.0\.": "side.conv.",
        r"^aux_head\.1\.": "side.norm.",
        r"^conv_seg\.": "classifier.",
        r"^aux_cls_seg\.": "side_classifier.",
    }
    filled(head, arrays, names)
    if meta["mode"] == "train":
        return Head(head)

    class Prediction(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = head

        def forward(self, x: Tensor) -> Tensor:
            return self.head([x, x])

    return Prediction()


class PID(nn.Module):
    """PIDNet's three branches, each of them ``PreActivated`` and a classifier."""

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.p_head, self.i_head = PreActivated(width // 2, channels), PreActivated(width, channels)
        self.d_head = PreActivated(width // 2, width // 4)
        self.conv_seg, self.p_cls_seg = nn.Conv2d(channels, classes, 1), nn.Conv2d(channels, classes, 1)
        self.d_cls_seg = nn.Conv2d(width // 4, 1, 1)

    def forward(self, *maps: Tensor) -> list[Tensor]:
        if len(maps) == 1:
            return [self.conv_seg(self.i_head(maps[0]))]
        heads = (self.p_head, self.p_cls_seg), (self.i_head, self.conv_seg), (self.d_head, self.d_cls_seg)
        return [classify(head(x)) for x, (head, classify) in zip(maps, heads, strict=True)]


def point_rend(arguments: dict[str, Any], meta: dict[str, Any], arrays: Arrays) -> nn.Module:
    point = PointRend(
        sum(arguments["in_channels"]),
        arguments["num_classes"],
        channels=arguments["channels"],
        layers=arguments["num_fcs"],
        align_corners=arguments["align_corners"],
    )
    filled(point, arrays, {r"^fcs\.(\d)\.conv\.": r"layers.\1.", "^fc_seg": "classifier"})
    told = json.loads(re.findall(r"\{.*?\}", meta["note"])[0].replace("'", '"'))
    assert arguments["coarse_pred_each_layer"]

    class Refinement(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.point = point

        def forward(self, features: Tensor, logits: Tensor) -> list[Tensor]:
            steps = [told[key] for key in ("subdivision_steps", "subdivision_num_points", "scale_factor")]
            fine = self.point.subdivide(features, logits, *steps)
            return [fine, self.point(features, logits, arrays["extra/points"].double())]

    return Refinement()


PORTS: dict[str, Callable[[dict[str, Any], dict[str, Any], Arrays], nn.Module]] = {
    "DAPPM": lambda args, meta, arrays: filled(
        DAPPM(args["in_channels"], args["out_channels"], branch_channels=args["branch_channels"]), arrays, PYRAMID
    ),
    "PAPPM": lambda args, meta, arrays: filled(
        DAPPM(args["in_channels"], args["out_channels"], branch_channels=args["branch_channels"], parallel=True),
        arrays,
        PYRAMID,
    ),
    "DDRHead": ddr,
    "PIDHead": lambda args, meta, arrays: filled(
        PID(args["in_channels"], args["channels"], args["num_classes"]), arrays, {}
    ),
    "LightHamHead": light_ham,
    "STDCHead": lambda args, meta, arrays: converted(
        {key: value for key, value in args.items() if key != "boundary_threshold"},
        meta | {"head": "FCNHead"},
        {key: value for key, value in arrays.items() if "_kernel" not in key},
    ),  # an FCN head; what is its own is a target of its loss
    "KernelUpdateHead": kernel_update,
    "PointHead": point_rend,
    "NMF2D": lambda args, meta, arrays: Decomposition(
        lambda x: nmf(x, arrays["extra/bases"].double(), args["eval_steps"], one_step=False)
    ),
    "SoftVQ": lambda args, meta, arrays: Decomposition(
        lambda x: soft_vq(x, arrays["extra/bases"].double(), args["K"], temperature=args["T"])
    ),
    "ExternalAttention": lambda args, meta, arrays: filled(
        ExternalAttention(
            args["channels"],
            args["size"],
            heads=args.get("heads", 1),
            projections=args.get("projections", False),
        ),
        arrays,
        {"^mk": "keys", "^mv": "values"},
    ),
    "LiteMLA": lambda args, meta, arrays: filled(
        LinearAttention(args["in_channels"], args["out_channels"], args["dim"], args["scales"]),
        arrays,
        {r"qkv\.conv": "qkv", r"aggreg\.": "scales.", r"proj\.conv": "project", r"proj\.norm": "norm"},
    ),
    "EfficientViTBlock": lambda args, meta, arrays: filled(
        EfficientViTBlock(args["in_channels"], args["dim"], scales=args["scales"], expansion=args["expand_ratio"]),
        arrays,
        {
            r"context_module\.main\.": "attention.",
            r"attention\.qkv\.conv": "attention.qkv",
            r"attention\.aggreg\.": "attention.scales.",
            r"attention\.proj\.conv": "attention.project",
            r"attention\.proj\.norm": "attention.norm",
            r"local_module\.main\.inverted_conv\.conv": "expand",
            r"local_module\.main\.depth_conv\.conv": "depthwise",
            r"local_module\.main\.point_conv\.conv": "project.0",
            r"local_module\.main\.point_conv\.norm": "project.1",
        },
    ),
    "FeaturesMemory": lambda args, meta, arrays: filled(
        MemoryContext(args["feats_channels"], args["num_classes"], args["transform_channels"]),
        arrays | {"sd/memory": arrays["sd/memory"].squeeze(1)},
        MEMORY,
    ),
}
FILES = golden_files("successors")


def near(actual: Tensor, expected: Tensor, what: str) -> None:
    """Equal relative to the deviation of what is expected."""
    assert actual.shape == expected.shape, what
    scale = expected.std() if expected.numel() > 1 and expected.std() > 0 else torch.ones(())
    assert float((actual - expected).detach().abs().max() / scale) < 1e-8, what


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_output_and_gradients(path: Path) -> None:
    arguments, meta, arrays = load(path)
    kind = meta["head"]
    build = PORTS.get(kind, converted if kind in RULES else None)
    assert build is not None, f"nothing here computes {kind}"
    module = build(arguments, meta, arrays).double().train(meta["mode"] == "train")
    inputs = [arrays[f"in/{i}"].double().requires_grad_() for i in range(len(meta["in_shapes"]))]
    outputs = module(*inputs)
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    for i in range(len(meta["out_shapes"])):
        near(outputs[i], arrays[f"out64/{i}"], f"output {i}")
    cotangents = [arrays[f"gout/{i}"].double() for i in range(len(meta["out_shapes"]))]
    loss = sum((y * g).sum() for y, g in zip(outputs, cotangents, strict=False))
    assert isinstance(loss, Tensor)
    loss.backward()
    for i, x in enumerate(inputs):
        gradient = torch.zeros_like(x) if x.grad is None else x.grad
        near(gradient, arrays[f"grad64/{i}"], f"gradient of input {i}")


@pytest.mark.parametrize("path", [p for p in FILES if p.stem.startswith("LightHam")], ids=lambda path: path.stem)
def test_the_papers_gradient_runs_through_the_last_update(path: Path) -> None:
    arguments, meta, arrays = load(path)
    head = light_ham(arguments, meta, arrays).train(meta["mode"] == "train")
    assert isinstance(head, Head)
    assert isinstance(head.head, LightHam)
    head.head.block.one_step = True
    inputs = [arrays[f"in/{i}"].double().requires_grad_() for i in range(len(meta["in_shapes"]))]
    (head(*inputs)[0] * arrays["gout/0"].double()).sum().backward()
    for i, x in enumerate(inputs):
        near(torch.zeros_like(x) if x.grad is None else x.grad, arrays[f"extra/one_step_grad64/{i}"], f"input {i}")


def test_the_memory_of_classes_moves() -> None:
    """Half of the way at momentum 1/2; an empty vector becomes the mean; what is ignored or absent moves nothing."""
    module = MemoryContext(2, 4, 2)
    module.memory[:3] = torch.tensor([[1.0, 0.0], [0.0, 0.0], [5.0, 5.0]])
    x = torch.tensor([[[1.0, 0.0, 3.0, 1.0, 9.0]], [[0.0, 2.0, 4.0, 2.0, 9.0]]])[None]  # (1, 2, 1, 5)
    labels = torch.tensor([[[0, 0, 1, 1, 255]]])
    module.update(x, labels, 0.5, strategy="mean")
    torch.testing.assert_close(module.memory, torch.tensor([[0.75, 0.5], [2.0, 3.0], [5.0, 5.0], [0.0, 0.0]]))

    module.memory[0] = torch.tensor([1.0, 0.0])
    module.update(x, labels, 0.5)  # by 1 - cosine: the first position, which the memory has, weighs nothing
    torch.testing.assert_close(module.memory[0], torch.tensor([0.5, 1.0]))
