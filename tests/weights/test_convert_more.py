"""More whole published models: logits of mmsegmentation 1.2.2 on weights that are redrawn from their names."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import SHIPPED, golden_files
from torch import Tensor
from whole_models import redraw, row_of

from lightning_app.app.cli import main
from lightning_app.tasks.semantic.inference import predict
from lightning_app.weights.load import load
from lightning_app.weights.openmmlab.convert import load_checkpoint, protocol_of

QUICK = ("segformer_b0", "fcn_mobilenet_v2", "icnet_r18")  # overlapping patches; an irregular dilation; three branches


FILES = golden_files("whole_more")


def difference(actual: Tensor, arrays: dict[str, np.ndarray], key: str) -> float:
    """Largest deviation from a map, of which some positions may be stored, relative to the logits' deviation."""
    expected = torch.from_numpy(arrays[key])
    if f"{key}_shape" in arrays:
        assert list(actual.shape) == arrays[f"{key}_shape"].tolist()
        actual = actual.flatten(2)[..., arrays[f"{key}_at"]]
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / arrays["logits"].std())


def norms(levels: list[Tensor], like: np.ndarray) -> Tensor:
    """L2 norm of each level; where class tokens were counted too, of a level's two halves."""
    if len(like) == 2 * len(levels):
        halves = [level.chunk(2, dim=1) for level in levels]
        return torch.stack([part.norm() for x, token in halves for part in (x, token[..., 0, 0])])
    return torch.stack([level.norm() for level in levels])


def overridden(row: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    merged = dict(row)
    for key, value in override.items():
        merged[key] = overridden(merged[key], value) if isinstance(value, dict) else value
    return merged


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Tensor], Tensor]:
    """Arrays, config, weights and images of a file."""
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    seed = int(arrays["seed"])
    row = overridden(row_of(str(arrays["row"])), json.loads(str(arrays.get("override", "{}"))))
    drawn = np.random.RandomState(1000 + seed).standard_normal((1, 3, *arrays["size"])).astype(np.float32)
    mean, std = (np.array(row["preprocess"][key])[:, None, None] / 255 for key in ("mean", "std"))
    return arrays, row, redraw(json.loads(str(arrays["recipe"])), seed), torch.from_numpy(drawn * std + mean)


@torch.no_grad()
def test_a_file_is_converted_as_people_type_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Segmenter: its classes are tokens, its images have other statistics, its patches a bias that no config tells."""
    arrays, _, state_dict, images = read(SHIPPED / "whole_more" / "segmenter_vit_t_mask.npz")
    path = tmp_path / "iter_160000.pth"
    torch.save({"state_dict": state_dict}, path)
    like = "segmenter_vit-t16_ade20k-512x512_160k"
    assert main(["zoo", "convert", str(path), "--like", like]) == 0
    assert "150 classes: wall, building" in capsys.readouterr().out
    model = load(str(path.with_suffix(".safetensors"))).double()
    assert difference(model.head(model.features(images)), arrays, "logits") < 1e-9
    assert model.info is not None
    assert (model.info.protocol.crop, model.info.protocol.stride) == ((512, 512), (480, 480))


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=() if path.stem in QUICK else pytest.mark.slow, id=path.stem) for path in FILES]
)
@torch.no_grad()
def test_logits_equal_the_reference(path: Path) -> None:
    arrays, row, state_dict, images = read(path)
    model = load_checkpoint(state_dict, row).double()
    features = model.features(images)
    own = model.backbone.levels((images - model.mean) / model.std) if hasattr(model.backbone, "levels") else features
    torch.testing.assert_close(
        norms(own, arrays["level_norms"]), torch.from_numpy(arrays["level_norms"]), rtol=1e-11, atol=0
    )
    logits = model.head(features)
    if "class_logits" in arrays:
        logits, classes = model.head.queries(features)
        assert difference(classes, arrays, "class_logits") < 1e-9
    assert difference(logits, arrays, "logits") < 1e-9
    for i, head in enumerate(model.auxiliary_heads):
        assert difference(head(features), arrays, f"aux{i}") < 1e-9

    protocol = protocol_of({**row, "test_cfg": {"mode": "whole"}})  # the numbers are of one pass
    resized = predict(model, images, images.shape[2:], protocol)
    assert difference(resized.flatten(2)[..., arrays["resized_at"]], arrays, "resized") < 1e-9
    assert (resized.argmax(1).numpy() == arrays["labels"]).all()
