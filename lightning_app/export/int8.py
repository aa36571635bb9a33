"""Convolutions in whole numbers of 8 bits, whose ranges are those that photographs give."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.data.images import read_image
from lightning_app.data.picture_files import SUFFIXES
from lightning_app.export.graphs import INPUT, Graph, Mismatch, Size
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.tasks.semantic.protocol import EvaluationProtocol, fitted
from lightning_app.util.errors import InputError

MOST_PHOTOS: Final = 100  # that are looked at: more change the ranges little
LONGEST: Final = 640  # side of a photograph: what the calibrator holds grows with it
LEAST_AGREEMENT: Final = 0.9  # share of the pixels that must keep their class


def photographs(folder: Path, network: Segmentor, size: Size | None) -> list[Tensor]:
    """Those to calibrate with, evenly drawn from a folder, as the network's protocol looks at them: (1, 3, H, W) each.

    Args:
        size: that the file takes, where it takes one alone.

    Raises:
        InputError: no folder, none in it, or one that cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of photographs to calibrate with")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"{folder}: no photographs to calibrate with (known: {' '.join(sorted(SUFFIXES))})")
    images = [torch.from_numpy(read_image(path)) for path in paths[:: -(-len(paths) // MOST_PHOTOS)]]
    protocol = network.info.protocol if network.info else EvaluationProtocol()
    return [_resized(image.permute(2, 0, 1)[None].float() / 255, protocol, size) for image in images]


def _resized(image: Tensor, protocol: EvaluationProtocol, size: Size | None) -> Tensor:
    """At the size that the network sees, or the largest that calibrating has room for."""
    height, width = size or fitted((image.shape[-2], image.shape[-1]), protocol)
    scale = 1 if size else min(LONGEST / max(height, width), 1)
    shape = (round(height * scale) or 1, round(width * scale) or 1)
    return F.interpolate(image, shape, mode="bilinear", antialias=True)


def quantize(source: Path, target: Path, images: Sequence[Tensor]) -> None:
    """Write the ONNX file anew with its convolutions in 8 bits: weights for each channel, features for each map.

    Attention and resizing stay in float32: they are a small share of the work, and lose most.

    Reference: onnxruntime's static quantisation in the QDQ form.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, object] | None:
            image = next(self.left, None)
            return None if image is None else {INPUT: image.numpy()}

    with tempfile.TemporaryDirectory() as scratch:
        folded = Path(scratch) / "folded.onnx"  # batch norms become part of their convolutions
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        quantize_static(
            str(folded),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def agreement(graph: Graph, run: Callable[[Tensor], Sequence[Tensor]], images: Sequence[Tensor]) -> float:
    """Share of the photographs' pixels that keep the network's class.

    Raises:
        Mismatch: it is too small.
    """
    same = total = 0
    for image in images:
        (given,), logits = run(image), graph.network(image)
        classes = given.argmax(1) if given.dim() == 4 else given
        same += int((classes == logits.argmax(1)).sum())
        total += classes.numel()
    if same < LEAST_AGREEMENT * total:
        raise Mismatch(
            f"In 8 bits {same / total:.1%} of the photographs' pixels keep their class, {LEAST_AGREEMENT:.0%} must: "
            "give photographs like those of its training, or --half"
        )
    return same / total
