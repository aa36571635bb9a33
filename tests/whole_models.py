"""Published models without their weights: the config by its name, and tensors redrawn from their names."""

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import zoo
from lightning_app.weights.openmmlab.published import upstream_config

ROWS = Path(__file__).parents[2] / "shared" / "openmmlab"  # where present


@cache
def row_of(config: str) -> dict[str, Any]:
    """The published model of that config: from the index, or from lists of models beside the checkout."""
    for entry in zoo.list_entries(task="semantic"):
        if entry.config == config:
            return upstream_config(entry)
    for path in sorted(ROWS.glob("published_*.json")):
        for row in json.loads(path.read_text()):
            if isinstance(row, dict) and row.get("name") == config and "decode_head" in row:
                return dict(row)
    raise AssertionError(f"no published model has the config {config}")


def redraw(recipe: list[dict[str, Any]], seed: int) -> dict[str, Tensor]:
    """The tensors that a recipe describes; index buffers, which are not drawn, are left out."""
    tensors: dict[str, np.ndarray] = {}
    for step in recipe:
        name, shape = step["name"], step["shape"]
        if "keep" in step:
            continue
        if "same_as" in step:
            tensors[name] = tensors[step["same_as"]]
        elif "const" in step:
            tensors[name] = np.full(shape, step["const"])
        else:
            random = np.random.RandomState(zlib.crc32(name.encode()) ^ seed)
            drawn = random.uniform(*step["uniform"], shape) if "uniform" in step else random.standard_normal(shape)
            if step.get("post") == "l2_dim1":
                drawn = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
            drawn = drawn * step["times"]
            if step.get("post") == "center_dim1":
                drawn = drawn - drawn.mean(axis=1, keepdims=True)
            tensors[name] = drawn.astype(np.float32)
    return {name: torch.from_numpy(np.asarray(value)) for name, value in tensors.items()}
