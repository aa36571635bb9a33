"""An entry of weights of one's own, as publishing writes it."""

from typing import Any

OWN: dict[str, Any] = {
    "backbone": {"name": "resnet18", "changes": {"a key": {"x.y": 'a "quoted" \\ é'}}},
    "dataset": "camvid",
    "split": "test",
    "crop": [360, 480],
    "metrics": {"mIoU": 60.25},
    "metrics_source": "contextzoo test ..., 2025-01-01, commit 0123abc",
    "iterations": 1000,
    "batch": 16,
    "optimizer": "AdamW",
    "lr": 0.004,
    "memory_gb": None,
    "url": "checkpoints/ccnet_resnet18_camvid-360x480_1k.safetensors",
    "mirrors": ["hf://someone/somewhere/file.safetensors"],
    "size": 123,
    "sha256": "0" * 64,
    "format": "safetensors",
    "code_licence": "Apache-2.0",
    "weights_licence": "CC-BY-4.0",
}
