"""torchvision's published segmentation networks as segmentors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from lightning_app.backbones.timm import TimmBackbone
from lightning_app.heads.deeplabv3 import DeepLabV3
from lightning_app.heads.fcn import FCN
from lightning_app.heads.lraspp import LRASPP
from lightning_app.reading.specs import spec_of
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.names import Names, Tensors, substitute
from lightning_app.weights.openmmlab.tensors import read_tensors
from zoo import ZooEntry

AUXILIARY_WEIGHT: Final = 0.5
PYRAMID: Final[Names] = (
    (r"0\.convs\.4\.1\.", "pyramid.image_pool.conv."),
    (r"0\.convs\.4\.2\.", "pyramid.image_pool.bn."),
    (r"0\.convs\.(\d)\.0\.", r"pyramid.branches.\1.conv."),
    (r"0\.convs\.(\d)\.1\.", r"pyramid.branches.\1.bn."),
    (r"0\.project\.0\.", "pyramid.fuse.conv."),
    (r"0\.project\.1\.", "pyramid.fuse.bn."),
    (r"1\.", "refine.conv."),
    (r"2\.", "refine.bn."),
    (r"4\.", "classifier."),
)
CONVOLUTION: Final[Names] = ((r"0\.", "convs.0.conv."), (r"1\.", "convs.0.bn."), (r"4\.", "classifier."))
STAGES: Final = (1, 2, 3, 4, 2, 3)  # blocks in each stage of MobileNetV3-Large, which are numbered through there
GATED: Final[Names] = (
    (r"cbr\.0\.", "reduce.conv."),
    (r"cbr\.1\.", "reduce.bn."),
    (r"scale\.1\.", "gate."),
    (r"low_classifier\.", "branches.0."),
    (r"high_classifier\.", "classifier."),
)


@dataclass(frozen=True)
class Network:
    """One of torchvision's builders.

    Args:
        levels: which of timm's feature levels the heads read; None is the four of a ResNet.
        head, arguments: class of the head, and its arguments.
        names: (pattern, replacement) of the head's tensors.
        auxiliary: level and width of the auxiliary head.
    """

    levels: tuple[int, ...] | None
    head: type[FCN] | type[DeepLabV3] | type[LRASPP]
    arguments: Mapping[str, Any]
    names: Names
    auxiliary: tuple[int, int] | None = None


_FCN: Final = Network(None, FCN, {"channels": 512, "num_convs": 1, "concat_input": False}, CONVOLUTION, (2, 256))
_ASPP: Final = {"channels": 256, "dilations": [1, 12, 24, 36], "fuse_kernel": 1, "refine": True}
_LRASPP: Final = {"channels": 128, "levels": [0, -1], "fusion": "sum", "pool": 0}
NETWORKS: Final[Mapping[str, Network]] = {
    "fcn_resnet50": _FCN,
    "fcn_resnet101": _FCN,
    "deeplabv3_resnet50": Network(None, DeepLabV3, _ASPP, PYRAMID, (2, 256)),
    "deeplabv3_resnet101": Network(None, DeepLabV3, _ASPP, PYRAMID, (2, 256)),
    "deeplabv3_mobilenet_v3_large": Network((2, 4), DeepLabV3, _ASPP, PYRAMID, (0, 10)),
    "lraspp_mobilenet_v3_large": Network((2, 4), LRASPP, _LRASPP, GATED),
}


def parts_of(entry: ZooEntry) -> dict[str, Any]:
    """The parts of the entry's network, in the words of our command line.

    Raises:
        InputError: the entry's config is none of torchvision's networks that are known here.
    """
    network = _network(entry)
    backbone: dict[str, Any] = {"name": entry.backbone.name, "output_stride": entry.backbone.output_stride}
    if entry.backbone.changes:
        backbone["changes"] = dict(entry.backbone.changes)
    if network.levels:
        backbone["out_indices"] = list(network.levels)
    parts: dict[str, Any] = {
        "backbone": spec_of(TimmBackbone, backbone),
        "head": spec_of(network.head, network.arguments),
        "auxiliary": None,
    }
    if network.auxiliary:
        level, channels = network.auxiliary
        arguments = {"channels": channels, "num_convs": 1, "concat_input": False, "levels": [level]}
        parts |= {"auxiliary": spec_of(FCN, arguments), "auxiliary_weight": AUXILIARY_WEIGHT}
    return parts


def read(path: Path, entry: ZooEntry) -> Tensors:
    """The tensors of a published file under our names; nothing in it is executed.

    Raises:
        InputError: an unreadable file, or a config that is not known.
    """
    return rename(entry, read_tensors(path))


def rename(entry: ZooEntry, state_dict: Mapping[str, Tensor]) -> Tensors:
    """The tensors of a whole network of torchvision's under our names; those of no known part keep theirs."""
    network = _network(entry)
    made: Tensors = {}
    backbone: Tensors = {}
    for name, tensor in state_dict.items():
        part, _, rest = name.partition(".")
        if part == "backbone":
            backbone[rest] = tensor
        elif part == "classifier":
            made[f"head.{substitute(network.names, rest)}"] = tensor
        elif part == "aux_classifier":
            made[f"auxiliary.{substitute(CONVOLUTION, rest)}"] = tensor
        else:
            made[name] = tensor
    if (fuse := made.get("head.pyramid.fuse.conv.weight")) is not None:  # the mean of the map is the last branch there
        width = fuse.shape[0]
        made["head.pyramid.fuse.conv.weight"] = torch.cat([fuse[:, -width:], fuse[:, :-width]], dim=1)
    own = backbone if network.levels is None else _mobilenet(backbone)
    return made | {f"backbone.model.{name}": tensor for name, tensor in own.items()}


def _network(entry: ZooEntry) -> Network:
    network = NETWORKS.get(str(entry.config))
    if network is None:
        raise InputError(f"{entry.id}: torchvision's {entry.config} is not known here, only {', '.join(NETWORKS)}")
    return network


def _mobilenet(tensors: Mapping[str, Tensor]) -> Tensors:
    """Layers and their parts are numbered there; here blocks stand in stages, and their parts have names."""
    places = [(stage, block) for stage, length in enumerate(STAGES) for block in range(length)]
    made: Tensors = {}
    for name, tensor in tensors.items():
        layer, _, rest = name.partition(".")
        number = int(layer)
        if number == 0:
            names: Names = ((r"0\.", "conv_stem."), (r"1\.", "bn1."))
            prefix = ""
        elif number > len(places):
            names, prefix = ((r"0\.", "conv."), (r"1\.", "bn1.")), f"blocks.{len(STAGES)}.0."
        else:
            first = number == 1  # widens nothing
            squeezes = f"{layer}.block.{1 if first else 2}.fc1.weight" in tensors
            parts = ["conv_dw", *(["se"] if squeezes else []), "conv_pw" if first else "conv_pwl"]
            names = _numbered(parts if first else ["conv_pw", *parts])
            prefix = "blocks.{}.{}.".format(*places[number - 1])
        made[prefix + substitute(names, rest)] = tensor
    return made


def _numbered(parts: list[str]) -> Names:
    """The names of a block's parts in their order: convolutions, each with its norm, and the squeeze between them."""
    names: list[tuple[str, str]] = []
    for i, part in enumerate(parts):
        if part == "se":
            names += [(rf"block\.{i}\.fc1\.", "se.conv_reduce."), (rf"block\.{i}\.fc2\.", "se.conv_expand.")]
        else:
            norm = [each for each in parts if each != "se"].index(part) + 1
            names += [(rf"block\.{i}\.0\.", f"{part}."), (rf"block\.{i}\.1\.", f"bn{norm}.")]
    return tuple(names)
