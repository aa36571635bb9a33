"""The decoders of segmentation_models_pytorch on our backbones' features."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal, get_args

from torch import Tensor

from lightning_app.blocks._layers import resize
from lightning_app.heads.base import ContextHead
from lightning_app.registry import HEADS
from lightning_app.util.errors import InputError, suggest

Decoder = Literal["Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PAN", "UPerNet", "Segformer", "DPT"]

FOUR_LEVELS = ("FPN", "PAN", "DPT")  # written for exactly four levels
NO_STEM = ("PAN", "UPerNet", "Segformer")  # count the image and stride 2 as two levels and use neither


@HEADS.register("smp", paper="github.com/qubvel-org/segmentation_models.pytorch", year=2019)
class Smp(ContextHead):
    """Any of segmentation_models_pytorch's decoders on our features, U-Net where none is named.

    These decoders expect every level to be half the one before. Level i is resized to ceil(h_0 / 2^(n-1)) 2^(n-1-i)
    rows, which changes nothing for an undilated backbone and image sides that are multiples of its stride. Where a
    decoder is written for four levels and the backbone gives fewer, the last one is repeated at half the size.

    Shape: levels (B, in_channels[i], h_i, w_i) -> (B, num_classes, h, w): twice the finest level for the U-Nets, MAnet,
    Linknet and DPT, the finest level for the others.

    Args:
        decoder: the decoder, in the library's spelling.
        decoder_options: arguments of the decoder's constructor that are not its default.

    Raises:
        InputError: if the decoder is unknown or the backbone gives one level only.

    Papers: U-Net arXiv:1505.04597, U-Net++ arXiv:1807.10165, MA-Net doi:10.1109/ACCESS.2020.3025372, LinkNet
    arXiv:1707.03718, FPN arXiv:1901.02446, PAN arXiv:1805.10180, UPerNet arXiv:1807.10221, SegFormer
    arXiv:2105.15203, DPT arXiv:2103.13413.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        decoder: Decoder = "Unet",
        decoder_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if decoder not in get_args(Decoder):
            hint = suggest(decoder, get_args(Decoder), cutoff=0.3)
            raise InputError(f'Unknown decoder "{decoder}".{hint} One of {", ".join(get_args(Decoder))}.')
        if len(in_channels) < 2:
            raise InputError(f"The decoder {decoder} joins several levels, the backbone gives {len(in_channels)}.")
        levels = list(in_channels)
        if decoder in FOUR_LEVELS:
            levels = (levels + levels[-1:] * 4)[:4] if len(levels) < 4 else levels[-4:]
        arguments, width = _arguments(decoder, levels, decoder_options or {})
        super().__init__(in_channels, num_classes, width, **options)

        library = "segmentation_models_pytorch"  # imported here: it takes seconds, and only this head needs it
        build = getattr(import_module(f"{library}.decoders.{decoder.lower()}.decoder"), f"{decoder}Decoder")
        self.name, self.levels = decoder, len(levels)
        self.decoder = build(**arguments)
        import_module(f"{library}.base.initialization").initialize_decoder(self.decoder)

    def context(self, features: Sequence[Tensor]) -> Tensor:
        given = list(features)[-self.levels :]
        given += given[-1:] * (self.levels - len(given))
        octaves = [2**i for i in reversed(range(self.levels))]
        top = [(size + octaves[0] - 1) // octaves[0] for size in given[0].shape[2:]]
        if self.name == "PAN":  # its pyramid halves the coarsest level three times
            top = [max(8, size) for size in top]
        pyramid = [
            resize(x, (top[0] * octave, top[1] * octave), self.align_corners)
            for x, octave in zip(given, octaves, strict=True)
        ]
        if self.name == "DPT":
            arguments: tuple[Any, ...] = (pyramid, [None] * self.levels)  # no class tokens
        else:
            batch, _, height, width = pyramid[0].shape
            stem = [pyramid[0].new_zeros(batch, 0, height * side, width * side) for side in (4, 2)]
            arguments = ([*stem[0 if self.name in NO_STEM else 1 :], *pyramid],)
        out: Tensor = self.decoder(*arguments)
        return out


def _arguments(decoder: str, levels: Sequence[int], options: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The decoder's constructor arguments, and how many channels it gives."""
    n = len(levels)
    stem = [0, 0] if decoder in NO_STEM else [0]
    if decoder == "DPT":
        defaults: dict[str, Any] = {
            "encoder_out_channels": levels,
            "encoder_output_strides": [4, 8, 16, 32],
            "encoder_has_prefix_tokens": False,
            "readout": "ignore",
            "fusion_channels": 256,
        }
    else:
        defaults = {"encoder_channels": [*stem, *levels]}
    if decoder in ("Unet", "UnetPlusPlus", "MAnet"):
        defaults |= {"n_blocks": n, "decoder_channels": [max(256 >> i, 16) for i in range(n)]}
    elif decoder == "Linknet":
        defaults |= {"n_blocks": n, "prefinal_channels": 32}
    elif decoder == "FPN":
        defaults |= {"segmentation_channels": 128, "dropout": 0.0}
    elif decoder == "PAN":
        defaults |= {"encoder_depth": 5, "decoder_channels": 32}
    elif decoder == "UPerNet":
        defaults |= {"decoder_channels": 256}
    elif decoder == "Segformer":
        defaults |= {"segmentation_channels": 256}
    arguments = defaults | options
    if decoder == "FPN" and arguments.get("merge_policy") == "cat":
        return arguments, 4 * arguments["segmentation_channels"]
    names = ("decoder_channels", "prefinal_channels", "segmentation_channels", "fusion_channels")
    width = next(arguments[name] for name in names if name in arguments)
    return arguments, width if isinstance(width, int) else width[-1]
