"""OpenMMLab's MaskFormerHead and Mask2FormerHead as ours: their nested configs in one, and names."""

from collections.abc import Mapping
from typing import Any

from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.names import Names

TRAINING = {"loss_cls", "loss_mask", "loss_dice", "train_cfg"}
KNOWN: Mapping[str, Any] = {
    "enforce_decoder_input_project": False,
    "positional_encoding": {"num_feats": 128, "normalize": True},
    "num_transformer_feat_level": 3,
    "strides": [4, 8, 16, 32],
}  # arguments at the one value that they have in published models
DECODERS: Mapping[str, Mapping[str, Any]] = {
    "mmdet.PixelDecoder": {"norm_cfg": {"type": "GN", "num_groups": 32}, "act_cfg": {"type": "ReLU"}},
    "mmdet.MSDeformAttnPixelDecoder": {
        "norm_cfg": {"type": "GN", "num_groups": 32},
        "act_cfg": {"type": "ReLU"},
        "num_outs": 3,
        "positional_encoding": {"num_feats": 128, "normalize": True},
    },
}


def _decoder(first: str, second: str) -> Names:
    """The queries' decoder; in files of mmdet's releases before 3.0 its attentions have numbers, not names."""
    here = r"layers.\1."
    there = r"transformer_decoder\.layers\.(\d+)\."
    names = {"self": "self_attention.", "cross": "cross_attention."}
    return (
        *((rf"{there}{kind}_attn\.attn\.", here + ours) for kind, ours in names.items()),
        (rf"{there}attentions\.0\.attn\.", here + names[first]),
        (rf"{there}attentions\.1\.attn\.", here + names[second]),
        (rf"{there}(?:ffn|ffns\.0)\.layers\.0\.0\.", f"{here}ffn.0."),
        (rf"{there}(?:ffn|ffns\.0)\.layers\.1\.", f"{here}ffn.2."),
        (r"transformer_decoder\.layers\.", "layers."),
        (r"transformer_decoder\.post_norm\.", "norm."),
        (r"cls_embed\.", "classes."),
        (r"mask_embed\.", "masks."),
        (r"query_embed\.weight", "positions"),
    )


MASKFORMER: Names = (
    (r"pixel_decoder\.last_feat_conv\.conv\.", "top.conv."),
    (r"pixel_decoder\.last_feat_conv\.gn\.", "top.norm."),
    (r"pixel_decoder\.lateral_convs\.(\d)\.conv\.", r"laterals.\1.conv."),
    (r"pixel_decoder\.lateral_convs\.(\d)\.gn\.", r"laterals.\1.norm."),
    (r"pixel_decoder\.output_convs\.(\d)\.conv\.", r"outs.\1.conv."),
    (r"pixel_decoder\.output_convs\.(\d)\.gn\.", r"outs.\1.norm."),
    (r"pixel_decoder\.mask_feature\.", "mask_feature."),
    (r"decoder_input_proj\.", "project."),
    *_decoder("self", "cross"),
)
_ENCODER = r"pixel_decoder\.encoder\.layers\.(\d+)\."
MASK2FORMER: Names = (
    (r"pixel_decoder\.input_convs\.(\d)\.conv\.", r"pixel_decoder.inputs.\1.conv."),
    (r"pixel_decoder\.input_convs\.(\d)\.gn\.", r"pixel_decoder.inputs.\1.norm."),
    (rf"{_ENCODER}(?:self_attn|attentions\.0)\.sampling_offsets\.", r"pixel_decoder.layers.\1.attention.offsets."),
    (rf"{_ENCODER}(?:self_attn|attentions\.0)\.attention_weights\.", r"pixel_decoder.layers.\1.attention.weights."),
    (rf"{_ENCODER}(?:self_attn|attentions\.0)\.value_proj\.", r"pixel_decoder.layers.\1.attention.value."),
    (rf"{_ENCODER}(?:self_attn|attentions\.0)\.output_proj\.", r"pixel_decoder.layers.\1.attention.out."),
    (rf"{_ENCODER}(?:ffn|ffns\.0)\.layers\.0\.0\.", r"pixel_decoder.layers.\1.ffn.0."),
    (rf"{_ENCODER}(?:ffn|ffns\.0)\.layers\.1\.", r"pixel_decoder.layers.\1.ffn.2."),
    (rf"{_ENCODER}", r"pixel_decoder.layers.\1."),
    (r"pixel_decoder\.level_encoding\.weight", "pixel_decoder.level_positions"),
    (r"pixel_decoder\.lateral_convs\.0\.conv\.", "pixel_decoder.lateral.conv."),
    (r"pixel_decoder\.lateral_convs\.0\.gn\.", "pixel_decoder.lateral.norm."),
    (r"pixel_decoder\.output_convs\.0\.conv\.", "pixel_decoder.out.conv."),
    (r"pixel_decoder\.output_convs\.0\.gn\.", "pixel_decoder.out.norm."),
    (r"level_embed\.weight", "level_embedding"),
    (r"query_feat\.weight", "start"),
    *_decoder("cross", "self"),
)


def flattened(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what its parts say in words of its own.

    Raises:
        InputError: a part that has no counterpart here.
    """
    kind, channels = config["type"], config["feat_channels"]
    for key, value in KNOWN.items():
        if config.get(key, value) != value:
            raise InputError(f"{kind} has {key}={config[key]!r}: only {value!r} has a counterpart here")
    if config["out_channels"] != channels:
        raise InputError(f"{kind} has out_channels={config['out_channels']}: only feat_channels has a counterpart here")
    pixels, decoder = config["pixel_decoder"], config["transformer_decoder"]
    fixed = DECODERS.get(pixels["type"])
    if fixed is None or any(pixels.get(key, value) != value for key, value in fixed.items()):
        raise InputError(f"{kind} has the pixel decoder {dict(pixels)!r}: no counterpart here")
    layer = decoder["layer_cfg"]
    heads = {layer[part]["num_heads"] for part in ("self_attn_cfg", "cross_attn_cfg")}
    if len(heads) > 1:
        raise InputError(f"{kind} has attentions of {sorted(heads)} heads: no counterpart here")
    nested = {*KNOWN, *TRAINING, "pixel_decoder", "transformer_decoder", "feat_channels", "out_channels"}
    made = {key: value for key, value in config.items() if key not in nested}
    made |= {"channels": channels, "layers": decoder["num_layers"], "heads": heads.pop()}
    made |= {"feedforward": layer["ffn_cfg"]["feedforward_channels"]}
    made["in_index"] = list(config.get("in_index") or range(len(config["in_channels"])))
    if encoder := pixels.get("encoder"):
        part = encoder["layer_cfg"]
        points = part["self_attn_cfg"]
        if (points["num_points"], points["num_levels"], points["num_heads"]) != (4, 3, made["heads"]):
            raise InputError(f"{kind} has the deformable attention {dict(points)!r}: no counterpart here")
        made["encoder_layers"] = encoder["num_layers"]
        made["encoder_feedforward"] = part["ffn_cfg"]["feedforward_channels"]
    return made
