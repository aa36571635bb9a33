"""OpenMMLab's cascade of an FPNHead and a PointHead as one config."""

from collections.abc import Mapping
from typing import Any

from lightning_app.util.errors import InputError

SUBDIVISION = "subdivision"  # in the PointHead's config: what the model's test_cfg says of it
READ = {"type", "in_channels", "in_index", "channels", "num_fcs", "num_classes", "align_corners", SUBDIVISION}
READ |= {"loss_decode", "dropout_ratio", "norm_cfg"}  # training only, or without an effect
KNOWN: Mapping[str, Any] = {"coarse_pred_each_layer": True, "scale_factor": 2}


def flattened(coarse: Mapping[str, Any], fine: Mapping[str, Any]) -> dict[str, Any]:
    """The first head's config, with the second's words for points in it.

    Raises:
        InputError: points that have no counterpart here.
    """
    told = dict(fine.get(SUBDIVISION, {}))
    for key in {**fine, **told}.keys() - READ - {"subdivision_steps", "subdivision_num_points", "mode"}:
        value = {**fine, **told}[key]
        if key not in KNOWN or value != KNOWN[key]:
            raise InputError(f'PointHead has the argument "{key}" ({value!r}): no counterpart here')
    same = all(fine.get(key, False) == coarse.get(key, False) for key in ("num_classes", "align_corners"))
    if not same or list(fine["in_index"]) != [0]:
        raise InputError("PointHead must read level 0, with the classes and align_corners of its FPNHead")
    return {
        **coarse,
        "type": fine["type"],
        "point_channels": fine["channels"],
        "layers": fine.get("num_fcs", 3),
        "steps": told.get("subdivision_steps", 2),
        "points": told.get("subdivision_num_points", 8196),
    }
