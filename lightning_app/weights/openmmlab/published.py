"""What OpenMMLab's published weights have in common, and the config that each was published with."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from zoo.datasets import datasets
from zoo.entry import ZooEntry
from zoo.errors import ZooError
from zoo.tasks.semantic import details_of

_SYNC_BN: Final = {"type": "SyncBN", "requires_grad": True}
_RESNET: Final = {
    "num_stages": 4,
    "out_indices": [0, 1, 2, 3],
    "style": "pytorch",
    "contract_dilation": True,
}
_SHARED: Final[Mapping[str, Mapping[str, Any]]] = {
    "ResNet": {**_RESNET, "norm_cfg": _SYNC_BN, "norm_eval": False},
    "ResNetV1c": {**_RESNET, "norm_cfg": _SYNC_BN, "norm_eval": False},
    "HRNet": {"norm_cfg": _SYNC_BN, "norm_eval": False},
}  # by the backbone's type; the others' tables hold all that is particular
_PREPROCESS: Final = {
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "bgr_to_rgb": True,
    "pad_val": 0,
    "seg_pad_val": 255,
}


def evaluation_size(entry: ZooEntry) -> tuple[int, int] | None:
    """Longer and shorter side of the box that OpenMMLab resizes evaluation images to fill; None = as they are.

    With corners aligned, one pixel more on each side, as in its configurations of 769 x 769 crops.
    """
    box = datasets()[entry.dataset].evaluated
    return (box[0] + 1, box[1] + 1) if box and details_of(entry).align_corners else box


def upstream_config(entry: ZooEntry) -> dict[str, Any]:
    """The published model as mmsegmentation's config spells it.

    Keys: backbone, neck, decode_head, auxiliary_head, segmentor, test_cfg, preprocess. What all published models share
    is filled in here; an entry's tables hold the rest.

    Raises:
        ZooError: the weights are not OpenMMLab's.
    """
    if entry.format != "openmmlab":
        raise ZooError(f"{entry.id} holds its own config: its format is {entry.format}")
    details = details_of(entry)
    shared = {
        "num_classes": len(datasets()[entry.dataset].classes),
        "align_corners": details.align_corners,
        "norm_cfg": _SYNC_BN,
        "dropout_ratio": 0.1,
    }

    def head(arguments: Mapping[str, Any], loss_weight: float) -> dict[str, Any]:
        loss = {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": loss_weight}
        if "kernel_generate_head" in arguments:  # holds heads that say all of themselves
            return dict(arguments)
        return {**shared, "loss_decode": loss, **arguments}

    *coarse, final = details.stages
    decode_head = [*(head(stage, 0.4) for stage in coarse), head(final, 1.0)]
    upstream = entry.backbone.upstream
    backbone = {**_SHARED.get(upstream["type"], {}), **upstream}
    extra = details.auxiliary_heads
    auxiliary = [head(each, 0.4) for each in extra]
    test: dict[str, Any] = {"mode": "whole"}
    if details.window and details.stride:
        test = {"mode": "slide", "crop_size": list(details.window), "stride": list(details.stride)}
    return deepcopy(
        {
            "backbone": backbone,
            "neck": details.neck,
            "decode_head": decode_head if coarse else decode_head[0],
            "auxiliary_head": auxiliary if len(extra) > 1 else auxiliary[0] if extra else None,
            "segmentor": "CascadeEncoderDecoder" if coarse else "EncoderDecoder",
            "test_cfg": test,
            "preprocess": {**_PREPROCESS, **(details.preprocess or {})},
        }
    )
