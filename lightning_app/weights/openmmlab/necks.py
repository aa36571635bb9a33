"""OpenMMLab's necks as those of our backbones; the FPN in front of FPNHead is that head's own here."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.names import Names, substitute

NAMES: Mapping[str, Names] = {
    "Feature2Pyramid": (
        (r"upsample_4x\.", "steps.0."),
        (r"upsample_2x\.0\.", "steps.1."),
    ),
    "MultiLevelNeck": (
        (r"lateral_convs\.(\d)\.conv\.", r"laterals.\1."),
        (r"convs\.(\d)\.conv\.", r"outs.\1."),
    ),
    "ICNeck": (
        (r"cff_24\.conv_low\.", "low_middle."),
        (r"cff_24\.conv_high\.", "high_middle."),
        (r"cff_12\.conv_low\.", "low_fine."),
        (r"cff_12\.conv_high\.", "high_fine."),
    ),
    "JPU": (
        (r"conv_layers\.(\d)\.0\.", r"laterals.\1."),
        (r"dilation_layers\.(\d)\.0\.(depth|point)wise_conv\.", r"branches.\1.\2wise."),
    ),
    "MLANeck": (
        (r"norm\.", "norms."),
        (r"mla\.channel_proj\.", "laterals."),
        (r"mla\.feat_extract\.", "outs."),
    ),
}
KNOWN: Mapping[str, Mapping[str, Any]] = {
    "Feature2Pyramid": {},
    "JPU": {"start_level": 0, "end_level": -1, "act_cfg": {"type": "ReLU"}},
    "MultiLevelNeck": {"norm_cfg": None, "act_cfg": None},
    "MLANeck": {"norm_layer": {"type": "LN", "eps": 1e-6, "requires_grad": True}, "act_cfg": {"type": "ReLU"}},
}  # arguments at the one value that they have in published models


def neck_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The ``neck`` of our backbones that a config describes.

    Raises:
        InputError: it has no counterpart here.
    """
    kind = config["type"]
    read = {
        "type",
        "in_channels",
        "out_channels",
        "embed_dim",
        "rescales",
        "scales",
        "norm_cfg",
        "init_cfg",
        "align_corners",
        *(("mid_channels", "dilations") if kind == "JPU" else ()),
    }
    for key in config.keys() - read:
        if key not in KNOWN.get(kind, {}) or config[key] != KNOWN[kind][key]:
            raise InputError(f'{kind} has the argument "{key}" ({config[key]!r}): no counterpart here')
    if kind == "Feature2Pyramid":
        scales = list(config.get("rescales", (4, 2, 1, 0.5)))
        if scales != [4, 2, 1, 0.5]:
            raise InputError(f"Feature2Pyramid with rescales {scales} has no counterpart here, only [4, 2, 1, 0.5]")
        return {"name": "feature2pyramid", "scales": scales}
    if kind == "MultiLevelNeck":
        scales = list(config.get("scales", (0.5, 1, 2, 4)))
        return {"name": "multilevel", "out_channels": config["out_channels"], "scales": scales}
    if kind == "ICNeck":
        return {
            "name": "cascade",
            "out_channels": config["out_channels"],
            "align_corners": config.get("align_corners", False),
        }
    if kind == "JPU":
        return {
            "name": "joint",
            "width": config.get("mid_channels", 512),
            "dilations": list(config.get("dilations", (1, 2, 4, 8))),
            "align_corners": config.get("align_corners", False),
        }
    if kind == "MLANeck":
        return {"name": "mla", "out_channels": config["out_channels"]}
    raise InputError(f'OpenMMLab\'s neck "{kind}" has no counterpart here, only {", ".join(NAMES)} and FPN')


def rename_neck(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an mmsegmentation neck under our names."""
    names = NAMES.get(config["type"], ())
    return {substitute(names, name): tensor for name, tensor in state_dict.items()}
