"""PointRend behind a Semantic FPN, and a published cascade of the two; FastFCN's neck."""

import pytest
import torch
from small import CLASSES, WIDTHS, build_head, levels
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.backbones.necks import new_neck
from lightning_app.heads.pointrend import PointRend
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.convert import build_head as converted

NORM = {"type": "BN"}
FPN = {"type": "FPN", "in_channels": list(WIDTHS), "out_channels": 16, "num_outs": 4}
COARSE = {
    "type": "FPNHead",
    "in_channels": [16] * 4,
    "in_index": [0, 1, 2, 3],
    "feature_strides": [4, 8, 16, 32],
    "channels": 8,
    "num_classes": CLASSES,
    "norm_cfg": NORM,
    "neck": FPN,
}
FINE = {
    "type": "PointHead",
    "in_channels": [16],
    "in_index": [0],
    "channels": 12,
    "num_fcs": 2,
    "coarse_pred_each_layer": True,
    "num_classes": CLASSES,
    "subdivision": {"mode": "whole", "subdivision_steps": 1, "subdivision_num_points": 20, "scale_factor": 2},
}


def published() -> dict[str, Tensor]:
    """Tensors of the cascade under OpenMMLab's names."""
    torch.manual_seed(3)
    shapes: dict[str, tuple[int, ...]] = {"0.conv_seg.weight": (CLASSES, 8, 1, 1), "0.conv_seg.bias": (CLASSES,)}
    for i, width in enumerate(WIDTHS):
        shapes |= {f"neck.lateral_convs.{i}.conv.weight": (16, width, 1, 1), f"neck.lateral_convs.{i}.conv.bias": (16,)}
        shapes |= {f"neck.fpn_convs.{i}.conv.weight": (16, 16, 3, 3), f"neck.fpn_convs.{i}.conv.bias": (16,)}
        for j in range(max(i, 1)):
            place = f"0.scale_heads.{i}.{2 * j}"
            shapes |= {f"{place}.conv.weight": (8, 8 if j else 16, 3, 3)}
            shapes |= {f"{place}.bn.{each}": (8,) for each in ("weight", "bias", "running_mean", "running_var")}
    for i, width in enumerate((16, 12)):
        shapes |= {f"1.fcs.{i}.conv.weight": (12, width + CLASSES, 1), f"1.fcs.{i}.conv.bias": (12,)}
    shapes |= {"1.fc_seg.weight": (CLASSES, 12 + CLASSES, 1), "1.fc_seg.bias": (CLASSES,)}
    return {name: torch.rand(shape) - 0.3 * ("var" not in name) for name, shape in shapes.items()}


@torch.no_grad()
def test_a_published_cascade() -> None:
    state = published()
    head = converted([COARSE, FINE], state).eval()
    assert isinstance(head, PointRend)
    features = levels()
    finest, coarse = head.pyramid(features)[0], head.classify(head.context(features), features)
    logits = head(features)
    assert logits.shape == (2, CLASSES, 2 * 27, 2 * 35)
    enlarged = F.interpolate(coarse, scale_factor=2, mode="bilinear")
    changed = (logits != enlarged).any(1)
    assert changed.flatten(1).sum(1).tolist() == [20, 20]
    image, row, column = changed.nonzero()[7].tolist()
    at = torch.tensor([(column + 0.5) / 35 - 1, (row + 0.5) / 27 - 1])  # -1..1 of a map twice as large
    fine, rough = (
        F.grid_sample(x[image : image + 1], at.view(1, 1, 1, 2), align_corners=False)[0, :, 0] for x in (finest, coarse)
    )
    x = torch.cat([fine, rough])
    for i in range(2):
        layer = state[f"1.fcs.{i}.conv.weight"][..., 0] @ x + state[f"1.fcs.{i}.conv.bias"][:, None]
        x = torch.cat([layer.relu(), rough])
    expected = state["1.fc_seg.weight"][..., 0] @ x + state["1.fc_seg.bias"][:, None]
    torch.testing.assert_close(logits[image, :, row, column], expected[:, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coarse_pred_each_layer": False}, "coarse_pred_each_layer"),
        ({"in_index": [1]}, "must read level 0"),
        ({"subdivision": {"scale_factor": 4}}, "scale_factor"),
    ],
)
def test_points_without_a_counterpart(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        converted([COARSE, FINE | change], {})


def test_points_of_training_are_all_positions() -> None:
    """At the middle of a position the map has its own value: P there is P of the two maps, one above the other."""
    head = build_head(PointRend).train()
    features = levels()
    outputs = head.outputs(features)
    assert outputs.logits.shape == outputs.auxiliary[0].logits.shape == (2, CLASSES, 27, 35)


def test_the_joint_pyramid() -> None:
    """FastFCN's: three levels in; out come two of them as they were, and four dilated views of all three."""
    torch.manual_seed(0)
    neck = new_neck({"name": "joint", "width": 6, "dilations": [1, 2, 4, 8]}, WIDTHS[1:]).eval()
    features = levels(1, WIDTHS[1:], ((16, 20), (8, 10), (4, 5)))
    outs = neck(features)
    assert outs[0] is features[0]
    assert outs[1] is features[1]
    assert outs[2].shape == (1, 24, 16, 20)
    assert neck.channels == [12, 16, 24]
    joint = torch.cat(
        [
            F.interpolate(lateral(x), (16, 20), mode="bilinear")
            for lateral, x in zip(neck.get_submodule("laterals").children(), features, strict=True)
        ],
        dim=1,
    )
    depthwise = neck.get_submodule("branches.3.depthwise")
    assert isinstance(depthwise.conv, nn.Conv2d)
    assert depthwise.conv.dilation == (8, 8)
    convolved = F.conv2d(joint, depthwise.conv.weight, padding=8, dilation=8, groups=18)
    normalised = neck.get_submodule("branches.3.depthwise.bn")(convolved)
    expected = neck.get_submodule("branches.3.pointwise")(normalised)  # no ReLU between
    torch.testing.assert_close(outs[2][:, 18:], expected)
