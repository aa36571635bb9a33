"""OpenMMLab's blocks inside backbones as ours."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_app.blocks.generalized_attention import TERMS
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.names import substitute

PLACES = {"after_conv2": "inside", "after_conv3": "shortcut"}
ATTENTION = (
    (r"(.*\.)?(query|key|value)_conv\.", r"\1\2."),
    (r"(.*\.)?proj_conv\.", r"\1project."),
    (r"(.*\.)?appr_geom_fc_(x|y)\.", r"\1position_\2."),
    (r"(.*\.)?appr_bias$", r"\1key_bias"),
    (r"(.*\.)?geom_bias$", r"\1position_bias"),
)  # of GeneralizedAttention


def context_of(plugins: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """A ResNet's ``plugins`` as the argument ``context`` of a backbone.

    Raises:
        InputError: a block, a place or an argument that has no counterpart here, or two blocks in one stage.
    """
    context: dict[str, dict[str, Any]] = {}
    for plugin in plugins:
        where = PLACES.get(plugin["position"])
        if where is None:
            raise InputError(f"position={plugin['position']!r} has no counterpart here: only {', '.join(PLACES)}")
        for stage in (f"layer{number}" for number, there in enumerate(plugin["stages"], 1) if there):
            if stage in context:
                raise InputError(f"Two plugins in {stage} have no counterpart here")
            context[stage] = {"where": where, **_block(plugin["cfg"])}
    return context


def attention_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of GeneralizedAttentionBlock that make it the one of a config.

    Raises:
        InputError: an argument that has no counterpart here.
    """
    options = {"num_heads": 9, "kv_stride": 2, "attention_type": "1111", **config}
    unknown = options.keys() - {"type", "in_channels", "num_heads", "kv_stride", "attention_type", "spatial_range"}
    if unknown or options.get("spatial_range", -1) != -1:
        raise InputError(f"{dict(config)!r} has no counterpart here: no {', '.join(unknown) or 'spatial_range'}")
    of_query, of_position = options["attention_type"][1] == "1", options["attention_type"][3] == "1"
    return {
        "heads": options["num_heads"],
        "kv_stride": options["kv_stride"],
        "terms": [term for term, there in zip(TERMS, options["attention_type"], strict=True) if there == "1"],
        "transposed": of_query and not of_position,
    }


def inside(name: str) -> str:
    """The name of a tensor of a block inside a backbone, whose place in it is found."""
    return substitute(ATTENTION, name) if ".aa.1." in name else name


def _block(config: Mapping[str, Any]) -> dict[str, Any]:
    if config["type"] == "GeneralizedAttention":
        return {"block": "generalized_attention", **attention_arguments(config)}
    if config["type"] == "ContextBlock" and config.keys() <= {"type", "ratio", "pooling_type", "fusion_types"}:
        block = {"block": "gcnet", "ratio": config["ratio"]}
        if "fusion_types" in config:
            block["fusion"] = [kind.removeprefix("channel_") for kind in config["fusion_types"]]
        return block | ({"pooling": config["pooling_type"]} if "pooling_type" in config else {})
    raise InputError(f"{dict(config)!r} has no counterpart here: only ContextBlock and GeneralizedAttention")
