"""OpenMMLab's IterativeDecodeHead: another head and the rounds over it, as one config and one head."""

from collections.abc import Mapping
from typing import Any

from lightning_app.registry import HEADS
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.names import Names

FIRST, ROUNDS = "kernel_generate_head", "kernel_update_head"
NAMES: Names = (
    (r"kernel_update_conv\.dynamic_layer\.", "update.dynamic."),
    (r"kernel_update_conv\.input_layer\.", "update.static."),
    (r"kernel_update_conv\.input_gate\.", "update.static_gate."),
    (r"kernel_update_conv\.update_gate\.", "update.dynamic_gate."),
    (r"kernel_update_conv\.input_norm_in\.", "update.static_gate_norm."),
    (r"kernel_update_conv\.norm_in\.", "update.dynamic_gate_norm."),
    (r"kernel_update_conv\.input_norm_out\.", "update.static_norm."),
    (r"kernel_update_conv\.norm_out\.", "update.dynamic_norm."),
    (r"kernel_update_conv\.fc_layer\.", "update.out."),
    (r"kernel_update_conv\.fc_norm\.", "update.norm."),
    (r"feat_transform\.conv\.", "transform."),
    (r"attention\.attn\.", "attention."),
    (r"ffn\.layers\.0\.0\.", "ffn.0."),
    (r"ffn\.layers\.1\.", "ffn.2."),
    *((rf"mask_fcs\.{3 * i + j}\.", f"layers.{i}.{j}.") for i in range(4) for j in range(3)),
    (r"fc_mask\.", "out."),
)  # of one round
ROUND: Mapping[str, Any] = {
    "type": "KernelUpdateHead",
    "num_ffn_fcs": 2,
    "dropout": 0.0,
    "conv_kernel_size": 1,
    "with_ffn": True,
    "act_cfg": {"type": "ReLU", "inplace": True},
    "ffn_act_cfg": {"type": "ReLU", "inplace": True},
    "feat_transform_cfg": {"conv_cfg": {"type": "Conv2d"}, "act_cfg": None},
    "feat_gather_stride": 1,
    "mask_transform_stride": 1,
    "kernel_init": False,
}  # arguments at the one value that they have in published models
UPDATE: Mapping[str, Any] = {
    "type": "KernelUpdator",
    "act_cfg": {"type": "ReLU", "inplace": True},
    "norm_cfg": {"type": "LN"},
    "gate_sigmoid": True,
    "gate_norm_act": False,
    "activate_out": False,
}
READ = {"num_classes", "num_heads", "num_mask_fcs", "feedforward_channels", "in_channels", "out_channels"}
READ |= {"kernel_updator_cfg"}


def _told(value: Any) -> Any:
    """A value without what is None, which a file may leave out."""
    return {key: each for key, each in value.items() if each is not None} if isinstance(value, Mapping) else value


def flattened(
    config: Mapping[str, Any], first: type, in_channels: list[int], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """The config with the first head's class, widths and arguments in it, and one round's for all.

    Raises:
        InputError: rounds that differ, or have no counterpart here.
    """
    begin, rounds = config[FIRST], config[ROUNDS]
    one, update = rounds[0], rounds[0].get("kernel_updator_cfg", {})
    if any(each != one for each in rounds) or len(rounds) != config["num_stages"]:
        raise InputError("IterativeDecodeHead with rounds that differ, or are not num_stages, has no counterpart here")
    for part, fixed, read in (
        (one, ROUND, READ),
        (update, UPDATE, {"in_channels", "feat_channels", "out_channels"}),
    ):
        for key in part.keys() - read:
            if key not in fixed or _told(part[key]) != _told(fixed[key]):
                raise InputError(f'{part["type"]} has the argument "{key}" ({part[key]!r}): no counterpart here')
    widths = {update.get(f"{kind}_channels") for kind in ("in", "feat", "out")}
    if len(widths) != 1 or {one["in_channels"], one["out_channels"]} != {arguments["channels"]}:
        raise InputError(f"IterativeDecodeHead with channels {sorted(map(str, widths))} has no counterpart here")
    levels = {level: width for level, width in enumerate(in_channels) if width}
    shared = ("channels", "dropout", "align_corners")
    slug = next(slug for slug, entry in HEADS.items() if entry.cls is first)
    rest = {key: config[key] for key in config.keys() - {FIRST, ROUNDS, "type"}}
    return {
        **{key: begin[key] for key in ("num_classes", "norm_cfg", "align_corners", "dropout_ratio") if key in begin},
        **rest,
        "type": config["type"],
        "in_channels": list(levels.values()),
        "in_index": list(levels),
        "channels": arguments["channels"],
        "first": slug,
        "arguments": {key: value for key, value in arguments.items() if key not in shared},
        "num_heads": one["num_heads"],
        "num_mask_fcs": one["num_mask_fcs"],
        "feedforward_channels": one["feedforward_channels"],
        "width": widths.pop(),
    }
