"""Weights small enough to make in a test: a published file of ours, a checkpoint of a run, an OpenMMLab file."""

import json
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from data.make_fakes import camvid
from safetensors.torch import save_file
from tiny import CLASSES, PALETTE
from torch import Tensor

import zoo
from lightning_app.app.cli import main
from lightning_app.weights.description import HEADER
from lightning_app.weights.openmmlab.convert import new_segmentor as new_openmmlab
from lightning_app.weights.openmmlab.published import upstream_config
from lightning_app.weights.parts import new_segmentor

ENTRY = "fcn_r18b-d8_cityscapes-512x1024_80k"  # a plain ResNet-18, whose upstream names are easily told


def describe_tiny(**changes: Any) -> dict[str, Any]:
    """What a file of a tiny FCN says of itself."""
    return {
        "name": "tiny",
        "model": {
            "backbone": {
                "class_path": "lightning_app.backbones.timm.TimmBackbone",
                "init_args": {"name": "test_resnet", "output_stride": 16, "pretrained": True},
            },
            "head": {"class_path": "lightning_app.heads.fcn.FCN", "init_args": {"channels": 8}},
            "auxiliary": {"class_path": "lightning_app.heads.fcn.FCN", "init_args": {"channels": 4, "levels": [-2]}},
        },
        "classes": list(CLASSES),
        "palette": [list(colour) for colour in PALETTE],
        "protocol": {"mode": "whole", "scales": [1.0]},
        "data": {"class_path": "tiny.NoiseData", "init_args": {}},
        **changes,
    }


def write_tiny(path: Path, **changes: Any) -> dict[str, Tensor]:
    """Write such a file; returns its tensors, drawn so that every class is the likeliest somewhere."""
    description = describe_tiny(**changes)
    torch.manual_seed(0)
    model = new_segmentor(description["model"], len(description["classes"]), "tiny")
    with torch.no_grad():
        model.head.classifier.weight.normal_()
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, {HEADER: json.dumps(description)})
    return tensors


def fit_camvid(folder: Path, *args: str) -> Path:
    """The best checkpoint of a run of one epoch on fakes of CamVid, made by the command line, in ``folder``/runs."""
    if not (folder / "camvid").exists():
        camvid(folder / "camvid")
    typed = f"""fit --data CamVid --data.root {folder / "camvid"} --data.crop_size [24,32] --data.batch_size 2
        --data.num_workers 0 --model.backbone.name test_resnet --model.backbone.output_stride 16 --model.head FCN
        --model.head.channels 8 --trainer.max_epochs 1 --trainer.accelerator cpu --trainer.devices 1 --run tiny"""
    assert main([*typed.split(), *args]) == 0
    return folder / "runs" / "tiny" / "checkpoints" / "best.ckpt"


def openmmlab_file(folder: Path) -> Path:
    """A file like the published one of ``ENTRY``, with random weights, under its published name."""
    entry = zoo.get(ENTRY)
    torch.manual_seed(0)
    names = ((r"backbone\.model\.", "backbone."), (r"head\.", "decode_head."), (r"auxiliary\.", "auxiliary_head."))
    state_dict = OrderedDict()
    for name, tensor in new_openmmlab(upstream_config(entry)).state_dict().items():
        for ours, theirs in names:
            name = re.sub(rf"\A{ours}", theirs, name)
        name = name.replace(".classifier.", ".conv_seg.").replace(".fuse.", ".conv_cat.")
        state_dict[name] = torch.randn_like(tensor) if "conv_seg" in name else tensor
    path = folder / entry.url.rpartition("/")[2]
    torch.save({"meta": {"CLASSES": None}, "state_dict": state_dict}, path)
    return path
