"""A model that starts from another's weights: every tensor that fits by name and shape."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_app.backbones.timm import TimmBackbone
from lightning_app.reading import specs
from lightning_app.tasks.info import Info
from lightning_app.util.errors import InputError


def transfer(source: Any, target: nn.Module, outputs: int, *, part: str | None = None, force: bool = False) -> str:
    """Give ``target`` every tensor of ``source``, a network with weights, that fits by name and shape.

    Args:
        outputs: how many things the target tells apart, such as classes.
        part: take those of this part alone, such as the backbone.
        force: even where under half of the target's tensors fit.

    Returns one line for a person: what was loaded and what was not.

    Raises:
        InputError: under half of the target's tensors are there, or those of a head of the same class have another
            width, and ``force`` is off.
    """
    info: Info = source.info
    given, wanted = (
        {name: tensor for name, tensor in model.state_dict().items() if part in (None, name.partition(".")[0])}
        for model in (source, target)
    )
    fitting = {name: tensor for name, tensor in given.items() if name in wanted and wanted[name].shape == tensor.shape}
    counted, present = (
        [name for name in names if not name.endswith("num_batches_tracked")] for names in (wanted, given)
    )
    new = [name for name in counted if name not in fitting]
    unused = [name for name in present if name not in wanted]
    share = f"{len(counted) - len(new)}/{len(counted)} tensors"
    same_head = type(getattr(source, "head", None)) is type(getattr(target, "head", None))
    heads = [name for name in new if name in given and name.startswith("head.") and same_head]
    other = [name for name in heads if not _is_of_outputs(given[name], wanted[name], info, outputs)]
    if (2 * len(new) > len(counted) or other) and not force:
        raise InputError(
            f"Only {share} of the {part or 'model'} are in {info.name}, which is {describe(source)}: leave "
            f"--model.backbone and --model.head out, or give {_options(info.parts)}, "
            "or --model.weights_force true"
        )
    target.load_state_dict(fitting, strict=False)
    line = f"Loaded {share}{f' of the {part}' if part else ''}."
    if new:
        changed = f" ({info.outputs} -> {outputs} {info.told})" if info.outputs != outputs else ""
        line += f" New: {_summary(new)}{changed}."
    return line + (f" Not used: {_summary(unused)}." if unused else "")


def _is_of_outputs(given: Tensor, wanted: Tensor, info: Info, outputs: int) -> bool:
    """Whether two tensors differ in the number of outputs alone."""
    lengths = zip(info.lengths(info.outputs), info.lengths(outputs), strict=True)
    return (given.shape[0], wanted.shape[0]) in [*lengths] and given.shape[1:] == wanted.shape[1:]


def _options(parts: Mapping[str, Any]) -> str:
    """Backbone and head as they are typed."""
    typed = []
    for part in ("backbone", "head"):
        spec = parts.get(part) or {}
        if "class_path" in spec and (part == "head" or not spec["class_path"].endswith(f".{TimmBackbone.__name__}")):
            typed.append(f"--model.{part} {spec['class_path'].rpartition('.')[2]}")
        for key, value in specs.given(spec).items():
            if value not in (None, {}, False) and key != "pretrained":
                typed.append(f"--model.{part}.{key} {json.dumps(value, separators=(',', ':'))}".replace('"', ""))
    return " ".join(typed)


def describe(network: Any) -> str:
    """Head, or the whole, and backbone in a few words."""
    backbone = getattr(network.backbone, "name", type(network.backbone).__name__)
    return f"{type(getattr(network, 'head', network)).__name__} on {backbone}"


def _summary(names: Sequence[str]) -> str:
    """Names with what they share said once; of many, how many in each part of the model."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layer, _, parameter = name.rpartition(".")
        layers.setdefault(layer, []).append(parameter)
    if len(layers) > 4:
        parts = Counter(name.partition(".")[0] for name in names)
        return ", ".join(f"{count} of {part}" for part, count in parts.items())
    return ", ".join(
        f"{layer}.{{{','.join(parameters)}}}" if len(parameters) > 1 else f"{layer}.{parameters[0]}"
        for layer, parameters in layers.items()
    )
