"""mmpose's top-down heatmap checkpoints as pose estimators."""

from collections.abc import Mapping
from typing import Any

from lightning_app.tasks.pose.codec import Codec, Kind
from lightning_app.util.errors import InputError

CODECS = {
    "MSRAHeatmap": {"type", "input_size", "heatmap_size", "sigma", "unbiased", "blur_kernel_size"},
    "UDPHeatmap": {"type", "input_size", "heatmap_size", "sigma", "heatmap_type", "radius_factor", "blur_kernel_size"},
}


def codec_of(config: Mapping[str, Any]) -> Codec:
    """The codec that an mmpose config describes; its sizes are (width, height).

    Raises:
        InputError: a codec or an argument that has no counterpart here.
    """
    name = config["type"]
    if name not in CODECS:
        raise InputError(f'mmpose\'s codec "{name}" has no counterpart here: only {", ".join(CODECS)}')
    if unknown := config.keys() - CODECS[name]:
        raise InputError(f"{name} has the arguments {', '.join(sorted(unknown))}: no counterpart here")
    kind: Kind
    if name == "MSRAHeatmap":
        kind = "dark" if config.get("unbiased") else "msra"
    else:
        kind = "udp_combined" if config.get("heatmap_type") == "combined" else "udp"
    names = {"sigma": "sigma", "blur_kernel_size": "blur_kernel", "radius_factor": "radius"}
    (width, height), (columns, rows) = config["input_size"], config["heatmap_size"]
    given = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
    return Codec(kind, (height, width), (rows, columns), **given)
