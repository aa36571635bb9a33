"""Every decode head against the numbers that mmsegmentation computed, in float64, through the weight converter."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from golden_files import SHIPPED, golden_files
from torch import Tensor

from lightning_app.heads.base import ContextHead
from lightning_app.heads.ocrnet import OCRNet
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.convert import build_head
from lightning_app.weights.openmmlab.heads import rename_head

FILES = golden_files("openmmlab")


class Golden(NamedTuple):
    """One file: a head in the mode it was run in, its inputs and what came out."""

    head: ContextHead
    config: dict[str, Any]
    meta: dict[str, Any]
    features: list[Tensor]
    prev: Tensor | None
    arrays: dict[str, Tensor]

    @classmethod
    def load(cls, path: Path) -> "Golden":
        with np.load(path) as file:
            config, meta = json.loads(str(file["kwargs_json"])), json.loads(str(file["meta_json"]))
            arrays = {key: torch.from_numpy(file[key]) for key in file.files if "_json" not in key}
        config["type"] = meta["head"]
        head = build_head(config, {key[3:]: value for key, value in arrays.items() if key.startswith("sd/")})
        head.double().train(meta["mode"] == "train")
        features = [arrays[f"in/{i}"].double().requires_grad_() for i in range(len(meta["in_shapes"]))]
        prev = arrays["prev"].double().requires_grad_() if "prev" in arrays else None
        return cls(head, config, meta, features, prev, arrays)

    def run(self) -> list[Tensor]:
        """The outputs in mmsegmentation's order, from one forward pass."""
        if self.prev is not None:
            assert isinstance(self.head, OCRNet)
            return [self.head(self.features, coarse=self.prev)]
        outputs = self.head.outputs(self.features)
        return [outputs.logits, *(auxiliary.logits for auxiliary in outputs.auxiliary)][: len(self.meta["out_shapes"])]


def assert_equal(actual: Tensor, expected: Tensor, what: str) -> None:
    """Equal relative to the largest entry of what is expected."""
    assert actual.shape == expected.shape, what
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-8 * max(expected.abs().max().item(), 1e-3), msg=what)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_output_and_gradients(path: Path) -> None:
    golden = Golden.load(path)
    outputs = golden.run()
    for i, output in enumerate(outputs):
        assert_equal(output, golden.arrays[f"out64/{i}"], f"output {i}")

    sum((output * golden.arrays[f"gout/{i}"].double()).sum() for i, output in enumerate(outputs)).backward()
    inputs = dict(enumerate(golden.features)) | ({"prev": golden.prev} if golden.prev is not None else {})
    for i, x in inputs.items():
        gradient = torch.zeros_like(x) if x.grad is None else x.grad
        assert_equal(gradient, golden.arrays[f"grad64/{i}"], f"gradient of input {i}")

    parameters = {id(p): p for p in golden.head.parameters()}
    expected: dict[int, float] = {}
    for name, norm in golden.meta["param_grad_l2_float64"].items():
        for ours in rename_head(golden.config, {name: torch.empty(0)}):
            key = id(golden.head.get_parameter(ours))
            expected[key] = expected.get(key, 0.0) if norm is None else max(expected.get(key, 0.0), norm)
    scale = max(expected.values())
    for key, norm in expected.items():
        gradient = parameters[key].grad
        actual = 0.0 if gradient is None else gradient.norm().item()
        assert actual == pytest.approx(norm, rel=1e-8, abs=1e-10 * scale)


@pytest.mark.parametrize("path", [path for path in FILES if path.stem.endswith("_train")], ids=lambda path: path.stem)
def test_buffers_after_a_training_step(path: Path) -> None:
    golden = Golden.load(path)
    golden.run()
    after = {key.removeprefix("sd_after64/"): value for key, value in golden.arrays.items() if "sd_after64/" in key}
    own = golden.head.state_dict()
    for name, value in rename_head(golden.config, after).items():
        assert_equal(own[name].double(), value.double(), name)


def test_a_cascade_is_one_head() -> None:
    """The coarse head inside gives what the two give one after the other."""
    coarse, fine = (Golden.load(SHIPPED / "openmmlab" / f"{name}.npz") for name in ("FCNHead__aux", "OCRHead__default"))
    stages = (coarse, fine)
    state = {
        f"{i}.{key.removeprefix('sd/')}": value
        for i, stage in enumerate(stages)
        for key, value in stage.arrays.items()
        if key.startswith("sd/")
    }
    head = build_head([stage.config for stage in stages], state).double().eval()
    logits, ((first, weight, _),) = head.outputs(fine.features)
    assert_equal(first, coarse.head(fine.features), "coarse logits")
    assert isinstance(fine.head, OCRNet)
    assert_equal(logits, fine.head(fine.features, coarse=first), "logits")
    assert_equal(head(fine.features), logits, "prediction")
    assert weight == 0.4
    with pytest.raises(InputError, match=r"give head\(features, coarse=logits\)"):
        fine.head(fine.features)


FCN = {"type": "FCNHead", "in_channels": 8, "in_index": 3, "channels": 4, "num_classes": 2, "norm_cfg": {"type": "BN"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "FCMHead"}, 'OpenMMLab\'s "FCMHead" has no counterpart here'),
        ({"num_conv": 2}, 'FCNHead has the argument "num_conv"'),
        ({"norm_cfg": {"type": "GN", "num_groups": 2}}, "normalisation 'GN'"),
        ({"act_cfg": {"type": "GELU"}}, "act_cfg"),
        ({"type": "PSPHead", "in_channels": [8, 8], "in_index": [2, 3]}, r"in_index=\[2, 3\] is not supported"),
        ({}, "The weights do not fit FCNHead: .* missing: .*convs.0.conv.weight"),
    ],
)
def test_what_cannot_be_converted_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_head(FCN | change, {})
