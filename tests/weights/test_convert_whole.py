"""Whole published models: logits of mmsegmentation 1.2.2 on weights that are redrawn from their names."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import whole_models
from torch import Tensor
from whole_models import redraw

from lightning_app.tasks.semantic.inference import predict
from lightning_app.weights.openmmlab.convert import load_checkpoint, protocol_of

FOLDER = Path(__file__).parents[1] / "goldens" / "whole"
NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))
QUICK = ("ann", "fcn_hr18", "upernet")  # two levels and shared layers; HRNet's fusion; stride 32


def row_of(config: str) -> dict[str, Any]:
    """The published model of that config; two are made from a close relative in the index."""
    if config == "ocrnet_r50-d8":
        row = whole_models.row_of("ocrnet_r101-d8_8xb2-40k_cityscapes-512x1024")
        return {**row, "backbone": {**row["backbone"], "depth": 50}}
    if config == "fcn_hr18_4xb2-40k_cityscapes-512x1024":
        row = whole_models.row_of("ocrnet_hr18_4xb2-40k_cityscapes-512x1024")
        return {**row, "decode_head": row["decode_head"][0]}
    return whole_models.row_of(config)


@dataclass
class Golden:
    row: dict[str, Any]
    state_dict: dict[str, Tensor]
    arrays: dict[str, np.ndarray]
    images: Tensor

    @classmethod
    def load(cls, name: str) -> "Golden":
        with np.load(FOLDER / f"{name}.npz") as file:
            arrays = {key: file[key] for key in file.files}
        seed, row = int(arrays["seed"]), row_of(Path(str(arrays["config"])).stem)
        drawn = np.random.RandomState(1000 + seed).standard_normal((1, 3, *arrays["size"])).astype(np.float32)
        mean, std = (np.array(row["preprocess"][key])[:, None, None] / 255 for key in ("mean", "std"))
        return cls(row, redraw(json.loads(str(arrays["recipe"])), seed), arrays, torch.from_numpy(drawn * std + mean))

    def difference(self, actual: Tensor, key: str) -> float:
        """Largest deviation, relative to the standard deviation of the logits."""
        expected = torch.from_numpy(self.arrays[key])
        assert actual.shape == expected.shape
        return float((actual - expected).abs().max() / self.arrays["logits"].std())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES]
)
@torch.no_grad()
def test_logits_equal_the_reference(name: str) -> None:
    golden = Golden.load(name)
    model = load_checkpoint(golden.state_dict, golden.row).double()

    features = model.features(golden.images)
    norms = torch.stack([level.norm() for level in features])
    torch.testing.assert_close(norms, torch.from_numpy(golden.arrays["level_norms"]), rtol=1e-11, atol=0)
    assert golden.difference(model.head(features), "logits") < 1e-9
    if "aux0" in golden.arrays:
        first = model.auxiliary(features) if model.auxiliary else model.head.outputs(features).auxiliary[0].logits
        assert golden.difference(first, "aux0") < 1e-9

    resized = predict(model, golden.images, golden.images.shape[2:], protocol_of(golden.row))
    assert golden.difference(resized.flatten(2)[..., golden.arrays["resized_at"]], "resized") < 1e-9
    assert (resized.argmax(1).numpy() == golden.arrays["labels"]).all()


@torch.no_grad()
def test_windows_of_a_whole_model_equal_the_reference_rule() -> None:
    """Every window by itself, its logits resized with align_corners, averaged where windows overlap."""
    golden = Golden.load("upernet")
    row = {**golden.row, "test_cfg": {"mode": "slide", "crop_size": [65, 65], "stride": [43, 43]}}
    row["decode_head"] = {**row["decode_head"], "align_corners": True}
    model = load_checkpoint(golden.state_dict, row).double()
    total = torch.zeros(1, 19, 97, 129, dtype=torch.float64)
    count = torch.zeros(97, 129)
    for top in (0, 32):  # 97 - 65
        for left in (0, 43, 64):  # 129 - 65
            window = (..., slice(top, top + 65), slice(left, left + 65))
            logits = model.head(model.features(golden.images[window]))
            total[window] += torch.nn.functional.interpolate(logits, (65, 65), mode="bilinear", align_corners=True)
            count[window] += 1
    protocol = protocol_of(row)
    assert (protocol.mode, protocol.crop, protocol.stride, protocol.align_corners) == (
        "slide",
        (65, 65),
        (43, 43),
        True,
    )
    torch.testing.assert_close(predict(model, golden.images, (97, 129), protocol), total / count)
