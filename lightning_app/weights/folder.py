"""A network as a folder that anyone can load: its weights, which say what they are, and their card."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from torch import Tensor, nn

import lightning_app
from lightning_app.data.pictures import Picture
from lightning_app.reading import tensor_files
from lightning_app.util.errors import InputError
from lightning_app.util.files import replacing
from lightning_app.weights.card import CARD, PICTURE, card
from lightning_app.weights.description import Description

WEIGHTS: Final = "model.safetensors"
NAME: Final = re.compile(r"[\w][\w.+-]{0,149}")


def save(
    network: Any,
    folder: str | Path,
    *,
    name: str | None = None,
    picture: Picture | None = None,
    licence: str | None = None,
    half: bool = False,
    address: str | None = None,
) -> Path:
    """Write a network that carries what it knows; returns the folder.

    Args:
        name: of the weights; theirs by default.
        picture: a photograph for the card, with what is seen in it.
        licence: of the weights, such as CC-BY-4.0; as before by default.
        half: store in half precision; it loads in single precision.
        address: by which they will be found; the folder by default.

    Raises:
        InputError: a network that cannot be described, a name that no file can have, or a folder that cannot be
            written to, or that holds other weights.
    """
    folder, description = Path(folder).expanduser(), Description.of_network(network)
    name = name or description.name.rpartition("/")[2]
    if not NAME.fullmatch(name):
        raise InputError(f"Weights cannot be called {name!r:.80}: give a plain name, such as ccnet-leaves")
    if others := [path.name for path in folder.glob("*.safetensors") if path.name != WEIGHTS]:
        raise InputError(f"{folder} holds other weights ({min(others)}): give another folder")
    licences = {**description.licences, **({"weights": licence} if licence else {})}
    provenance = {**description.provenance, "contextzoo": lightning_app.__version__}
    description = replace(description, name=name, licences=licences, provenance=provenance)
    seen = None if picture is None else network.predict(picture).overlay()
    tensors = tensors_of(network, half=half)
    text = card(description, network, address=address or str(folder), picture=seen is not None, half=half)
    try:
        with replacing(folder / WEIGHTS) as path:
            tensor_files.write(path, tensors, description.as_header())
        if seen is not None:
            with replacing(folder / PICTURE) as path:
                seen.save(path, "JPEG", quality=90)
        with replacing(folder / CARD) as path:
            path.write_text(text)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{folder} cannot be written to ({reason})") from None
    return folder


def tensors_of(network: nn.Module, *, half: bool) -> dict[str, Tensor]:
    """What a file of the network holds; statistics beyond half precision stay in single precision.

    Raises:
        InputError: a weight that half precision does not have.
    """
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    if not half:
        return tensors
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    weights = dict(network.named_parameters())
    for name in [name for name, tensor in halves.items() if not tensor.isfinite().all()]:
        halves[name] = tensors[name]
        if name in weights:
            raise InputError(f"{name} has values beyond half precision's 65504: publish without --half")
    return halves
